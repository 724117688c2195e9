"""The course on one page, as PDF: ``lecturer/cheatsheet.md``, with what minikv knows of itself.

    python notebooks/cheatsheet.py              # writes lecturer/cheatsheet.pdf; needs Chromium
    python notebooks/cheatsheet.py --html FILE

Shapes, names, sizes, theorems, policies and commands are asked of minikv. The title of the PDF
holds a digest of the page that was printed, so that a test sees when it is of yesterday. Needs the
extra `slides`.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from pathlib import Path

import slides
from lecturer import deck
from pictures import CONFIG, LETTERS

import minikv
from minikv.caches import POLICIES
from minikv.cli import make_parser
from minikv.experiments.accounting import shape_bytes
from minikv.shapes import shape
from minikv.verify import THEOREMS

HERE = Path(__file__).with_name("lecturer")
PDF = HERE / "cheatsheet.pdf"
STEM = "minikv on one page"
SIZES = ("smollm2-135m", "smollm-1.7b", "llama-3.2-1b", "gemma-3-4b")
COMMANDS = (
    "fetch",
    "generate",
    "inspect",
    "prove",
    "fingerprint",
    "compare",
    "memory",
    "frontier",
    "conform",
    "atlas",
    "paper",
    "course",
    "doctor",
)
WHERE = {"T": "tokens", "S": "keys that are seen, old and new"}
FIELDS = {
    "V": "vocab_size",
    "D": "hidden_size",
    "F": "intermediate_size",
    "L": "num_hidden_layers",
    "H": "num_attention_heads",
    "G": "num_key_value_heads",
    "d": "head_dim",
}


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines = [" | ".join(row) for row in cells]
    lines.insert(1, " | ".join("---" for _ in head))
    return "\n".join(f"| {line} |" for line in lines)


def letters() -> str:
    """What the letters mean, and what they are in the model of the course."""
    config = shape(SIZES[0])
    rows = [(letter, words, "") for letter, words in WHERE.items()]
    rows += [(letter, f"`{name}`", f"{getattr(config, name):,}") for letter, name in FIELDS.items()]
    return table(("", "means", SIZES[0]), rows)


def names() -> str:
    """The activations of a block, with the letters of their shapes, as a run gives them."""
    model = minikv.random_model(CONFIG, 1)
    _, activations = model.run_with_cache([3, 1, 4, 1, 5])
    rows: dict[str, list[str]] = {}
    for name, value in activations.items():
        if name.startswith("blocks.0."):
            letters = [LETTERS.get(size, str(size)) for size in value.shape]
            if name.endswith(("hook_attn_scores", "hook_pattern")):
                letters[-1] = "S"
            rows.setdefault(", ".join(letters), []).append(name.removeprefix("blocks.0."))
    listed = [(f"({key})", " ".join(f"`{name}`" for name in found)) for key, found in rows.items()]
    return table(("shape", "names"), listed)


def sizes() -> str:
    """Bytes of a token at some shapes, in bfloat16."""
    rows = []
    for name in SIZES:
        full, one, every = (shape_bytes(name, kept) for kept in ("K/V", "embedding", "every"))
        rows.append((name, f"{full:,}", f"{one:,}", f"{every:,}"))
    return table(("bytes a token, bfloat16", "K and V", "one residual", "every layer"), rows)


def policies() -> str:
    """What each policy keeps, as its class says it in a line."""
    kept = ("window", "streaming_llm", "h2o", "snapkv", "tova", "none", "residual")
    rows = [(f"`{name}`", (POLICIES[name].__doc__ or "").split("\n")[0]) for name in kept]
    return table(("policy", "keeps"), [(name, said.replace("``", "`")) for name, said in rows])


def theorems() -> str:
    """Each in a line."""
    return table(("", "holds"), [(name, each.statement) for name, each in THEOREMS.items()])


def commands() -> str:
    """Those that the course uses, as the command line describes them."""
    import cli_page

    said = cli_page.summaries(make_parser())
    return table(("`minikv ...`", ""), [(f"`{name}`", said[name]) for name in COMMANDS])


MADE = {
    "letters": letters,
    "names": names,
    "sizes": sizes,
    "policies": policies,
    "theorems": theorems,
    "commands": commands,
}
PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
{style}
</style>
<body>
{body}
<footer>Made by notebooks/cheatsheet.py of minikv {version}. Text and pictures of the course are
under the licence of the code, Apache 2.0.</footer>
</body>
</html>
"""


def page() -> str:
    """The page, whose title ends with a digest of all else."""
    text = (HERE / "cheatsheet.md").read_text(encoding="utf-8")
    text = re.sub(r"\{\{(\w+)\}\}", lambda found: MADE[found[1]](), text)
    columns = text.partition("\n\n")[2].split("\n---\n")
    body = "\n".join(f"<section>\n{deck.rendered(column)}\n</section>" for column in columns)
    head = f"<h1>{STEM}</h1>\n<main>\n{body}\n</main>"
    style = (HERE / "cheatsheet.css").read_text(encoding="utf-8").strip()
    digest = hashlib.sha256((style + text).encode()).hexdigest()[:12]
    title = f"{STEM} ({digest})"
    return PAGE.format(title=title, style=style, body=head, version=minikv.__version__)


def title(html: str) -> str:
    """The title of a page."""
    return html.partition("<title>")[2].partition("</title>")[0]


def printed(pdf: bytes) -> tuple[str, int]:
    """The title of a PDF that Chromium printed, and how many pages it has."""
    found = re.search(rb"/Title \((.*)\)\n", pdf)
    pages = len(re.findall(rb"/Type /Page\b", pdf))
    return (found[1].replace(b"\\", b"").decode() if found else ""), pages


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the page, not the PDF")
    options = parser.parse_args()
    target = options.html or PDF.with_suffix(".html")
    target.write_text(page(), encoding="utf-8")
    if options.html is None:
        slides.print_pdf(slides.browser(), target.resolve().as_uri(), PDF)
        target.unlink()
        print(PDF)


if __name__ == "__main__":
    main()
