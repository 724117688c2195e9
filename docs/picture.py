"""The claim in one picture: ``docs/_static/claim.svg``, of the site's home page and of README.

    python docs/picture.py            # draw it again

Above: the residual stream, and where keys and values come from. Below: four caches that decode one
text with a small random model in exact arithmetic, drawn after they have done so. Names are the
library's own; a renamed function or activation, or a cache that loses its bits, changes the file,
and `tests/site/test_picture.py` then asks to draw it again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import minikv
from minikv import decoder
from minikv.commands.output import readable
from minikv.experiments.demo import demonstrate
from minikv.experiments.policies import policy_cache

FILE = Path(__file__).parent / "_static" / "claim.svg"
WIDTH, HEIGHT = 624, 520
PROMPT = [(7 * n * n + 3) % 97 for n in range(16)]  # any ids would do
NEW_TOKENS = 9  # the last is not read again: 24 tokens have been seen

# Within a page of the site its theme's colours count, in a file of its own those of the reader's
# system. Kept, made again and lost differ by shape too.
STYLE = """
.claim { font: 15px system-ui, sans-serif; --ink: var(--color-foreground-primary, #1b1f24);
  --soft: var(--color-foreground-muted, #59636e); --kept: #0072b2; --again: #b45309; }
.claim text { fill: var(--ink); }
.claim .code { font: 13.5px ui-monospace, monospace; }
.claim .soft { fill: var(--soft); }
.claim .head { font-weight: 600; }
.claim .end { text-anchor: end; }
.claim .middle { text-anchor: middle; }
.claim .stream { stroke: var(--ink); stroke-width: 5; }
.claim .line { stroke: var(--soft); stroke-width: 1.5; fill: none; }
.claim .box { stroke: var(--soft); stroke-width: 1.5; fill: none; }
.claim .made { stroke: var(--again); stroke-width: 2; stroke-dasharray: 5 4; fill: none; }
.claim .point { fill: var(--ink); }
.claim .kept { fill: var(--kept); stroke: var(--kept); }
.claim .again { fill: none; stroke: var(--again); stroke-width: 1.5; }
.claim .dot { fill: var(--again); }
.claim .lost { stroke: var(--soft); stroke-width: 1.5; fill: none; }
"""
DARK = "--kept: #56b4e9; --again: #e69f00;"
ALONE = f"""
@media (prefers-color-scheme: dark) {{
  .claim {{ --ink: #e6e9ed; --soft: #a8b0b9; {DARK} }}
}}
"""


@dataclass(frozen=True)
class Row:
    """What one cache holds of the text, and whether it was enough.

    Parameters
    ----------
    cache : str
        See `minikv.experiments.demo.CACHES`.
    seen, stored : int
        Tokens of the text, and those whose K and V are held.
    nbytes : int
    same_bits : bool
        Whether all logits equal the full cache's in every bit.
    """

    cache: str
    seen: int
    stored: int
    nbytes: int
    same_bits: bool

    @property
    def rest(self) -> str:
        """What became of the tokens whose K and V are not held: ``"again"`` or ``"lost"``."""
        if self.same_bits:
            return "again"
        return "lost"


def measured() -> list[Row]:
    """Decode with each cache, in exact arithmetic, which has the same bits on every machine."""
    model = minikv.random_model(minikv.tiny_config(), seed=0, arithmetic="exact")
    decoded = demonstrate(model, PROMPT, NEW_TOKENS)
    rows = []
    for name, run in decoded.items():
        cache = policy_cache(name, model.weights)
        model.forward([[*PROMPT, *run.tokens[:-1]]], [cache], logits="none")
        same = run.same_bits(decoded["full"])
        rows.append(Row(name, cache.seen, cache.stored, run.nbytes, same))
    return rows


def activation_names() -> list[str]:
    """The names that a forward pass of two blocks gives to what it computes."""
    model = minikv.random_model(minikv.tiny_config())
    return list(model.run_with_cache([1, 2, 3])[1])


def text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>'


def line(path: str, kind: str = "line", arrow: bool = True) -> str:
    end = ' marker-end="url(#claim-arrow)"' if arrow else ""
    return f'<path d="{path}" class="{kind}"{end}/>'


def box(x: float, y: float, width: float, height: float, kind: str = "box") -> str:
    size = f'width="{width:g}" height="{height:g}"'
    return f'<rect x="{x:g}" y="{y:g}" {size} rx="6" class="{kind}"/>'


def point(x: float, y: float, radius: float = 6, kind: str = "point") -> str:
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" class="{kind}"/>'


def stream_panel(names: Sequence[str]) -> list[str]:
    """The stream from embedding to logits, its blocks, and K and V beside them."""
    kv_name = minikv.kv_from_residual.__name__
    parts = [
        text(16, 26, "A block reads the residual stream, and adds to it", "head"),
        text(16, 78, decoder.embed.__name__, "code"),
        line("M 66 74 H 530", "stream", arrow=False),
        line("M 530 74 H 545"),
        text(552, 78, decoder.unembed.__name__, "code"),
    ]
    for block in (0, 1):
        left = 88 + 228 * block
        read = f"blocks.{block}.hook_resid_pre"
        made = [f"blocks.{block}.attn.hook_{letter}" for letter in ("rot_k", "v")]
        absent = {read, *made} - set(names)
        if absent:
            raise SystemExit(f"the picture names {sorted(absent)}, which no forward pass computes")
        inside = f"{decoder.attend.__name__}, {decoder.mlp.__name__}"
        parts += [
            point(left, 74),
            text(left - 12, 56, read, "code"),
            line(f"M {left} 80 V 182"),
            line(f"M {left} 112 H {left + 46}"),
            box(left + 50, 96, 116, 32),
            text(left + 108, 117, inside, "code middle"),
            line(f"M {left + 166} 112 H {left + 190} V 84"),
            text(left + 10, 162, kv_name, "code"),
            box(left - 16, 186, 220, 50, "made"),
            text(left + 94, 206, made[0], "code middle"),
            text(left + 94, 226, made[1], "code middle"),
            line(f"M {left + 150} 186 V 132"),
        ]
    parts += [
        text(16, 264, "The KV cache keeps what is in the broken frames."),
        text(16, 284, "It was made from the stream, so it can be made again:"),
        text(16, 304, "bit for bit, if sums do not depend on their order."),
    ]
    return parts


def cell(x: float, y: float, kind: str) -> str:
    """One token of a cache."""
    frame = f'<rect x="{x:g}" y="{y:g}" width="10" height="16" rx="2" class="{kind}"/>'
    if kind == "again":
        return frame + point(x + 5, y + 8, 2.2, "dot")
    if kind == "lost":
        return line(f"M {x + 1:g} {y + 4:g} l 8 8 m 0 -8 l -8 8", "lost", arrow=False)
    return frame


def cache_panel(rows: Sequence[Row]) -> list[str]:
    """A line for each cache: its tokens, its bytes, its verdict."""
    seen = rows[0].seen
    parts = [
        text(16, 346, f"Four caches of a small random model, {seen} tokens", "head"),
        text(184, 372, "same bits", "soft end"),
        text(262, 372, "holds", "soft end"),
        text(280, 372, "tokens of the text, oldest first", "soft"),
    ]
    for number, row in enumerate(rows):
        y = 384 + 28 * number
        verdict = "yes" if row.same_bits else "no"
        parts.append(text(16, y + 14, row.cache, "code"))
        parts.append(text(184, y + 14, verdict, "head end"))
        parts.append(text(262, y + 14, readable(row.nbytes), "end"))
        for token in range(row.seen):
            old = token < row.seen - row.stored
            kind = row.rest if old else "kept"
            parts.append(cell(280 + 13.8 * token, y, kind))
    legend = [("kept", "K and V kept"), ("again", "made again"), ("lost", "lost")]
    for (kind, words), x in zip(legend, (16, 150, 272), strict=True):
        parts += [cell(x, 497, kind), text(x + 17, 511, words, "soft")]
    return parts


def described(rows: Sequence[Row]) -> str:
    """The picture in words."""
    said = [
        "Each block reads the residual stream and adds to it. Keys and values are made from the "
        "stream, and can be made again."
    ]
    for row in rows:
        bits = "the same bits" if row.same_bits else "other bits"
        said.append(
            f"{row.cache}: K and V of {row.stored} of {row.seen} tokens, "
            f"{readable(row.nbytes)}, {bits}."
        )
    return " ".join(said)


def drawn(rows: Sequence[Row], names: Sequence[str]) -> str:
    """The picture as SVG."""
    parts = [*stream_panel(names), *cache_panel(rows)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" class="claim" role="img" '
        'aria-labelledby="claim-title claim-words">'
    )
    arrow = (
        '<marker id="claim-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M 0 0 L 8 4 L 0 8 z" style="fill: var(--soft)"/>'
        "</marker>"
    )
    return "\n".join(
        [
            head,
            '<title id="claim-title">The KV cache is redundant</title>',
            f'<desc id="claim-words">{escape(described(rows))}</desc>',
            f"<style>{STYLE}{ALONE}</style>",
            f"<defs>{arrow}</defs>",
            *parts,
            "</svg>\n",
        ]
    )


def for_the_page(svg: str) -> str:
    """The picture as part of a page, whose theme decides its colours."""
    themed = (
        "@media (prefers-color-scheme: dark) "
        f"{{ body:not([data-theme='light']) .claim {{ {DARK} }} }}\n"
        f"body[data-theme='dark'] .claim {{ {DARK} }}\n"
    )
    assert ALONE in svg
    return svg.replace(ALONE, themed)


if __name__ == "__main__":
    FILE.write_text(drawn(measured(), activation_names()), encoding="utf-8")
    print(f"{FILE}: {math.ceil(FILE.stat().st_size / 1000)} kB")
