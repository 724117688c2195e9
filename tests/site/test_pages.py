"""What the site makes of the repository: the picture, and the pages that are written by code."""

from __future__ import annotations

import doctest
import io
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import alt_text
import cli_page
import files_page
import outline
import papers_page
import picture
import proof_page
import pytest
import speed_page
from golden_models import CONFIGS

from minikv.cli import make_parser
from minikv.commands import find_commands
from minikv.verify import CLAIMS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "module", [alt_text, cli_page, files_page, outline, papers_page, speed_page]
)
def test_examples_are_so(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def test_the_picture_is_what_the_library_does_now():
    """Exact arithmetic: the same picture on every machine."""
    drawn = picture.drawn(picture.measured(), picture.activation_names())
    kept = picture.FILE.read_text(encoding="utf-8")
    assert drawn == kept, "run  python docs/picture.py"
    ElementTree.fromstring(kept)


def test_readme_shows_the_picture_and_says_what_is_on_it():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    words = picture.described(picture.measured())
    assert f"![{words}](docs/_static/claim.svg)" in readme


def test_a_cache_that_loses_bits_would_show_in_the_picture():
    rows = picture.measured()
    assert [row.same_bits for row in rows] == [True, True, True, False]
    names = picture.activation_names()
    wrong = [replace(row, same_bits=False) for row in rows]
    assert picture.drawn(wrong, names) != picture.drawn(rows, names)
    assert "yes" not in re.findall(r">(yes|no)<", picture.drawn(wrong, names))


def test_an_activation_that_is_not_there_cannot_be_drawn():
    with pytest.raises(SystemExit, match="hook_v"):
        picture.drawn(picture.measured(), ["blocks.0.hook_resid_pre", "blocks.0.attn.hook_rot_k"])


def test_the_page_of_commands_has_every_command_and_option():
    page = cli_page.page()
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == list(find_commands())
    for name, parser in cli_page.commands(make_parser()).items():
        part = page.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]
        shown = " ".join(re.findall(r"^```\{option\} (.+)$", part, re.MULTILINE))
        for action in parser._actions:
            for option in action.option_strings:
                assert (option in shown.split()) == (option not in ("-h", "--help")), option


def test_the_list_of_files_has_every_module_with_a_line_about_it():
    listed = re.findall(r"^\| `(\w+\.py)` \| (.+) \|$", files_page.section(), re.MULTILINE)
    modules = [path.name for path in (ROOT / "minikv").rglob("*.py")]
    assert sorted(name for name, _ in listed) == sorted(modules)


def test_a_page_can_be_edited_where_the_repository_is_said_to_be(monkeypatch, tmp_path):
    extension = pytest.importorskip("extension", reason="needs Sphinx (extra `docs`)")
    (tmp_path / "origins.json").write_text('{"howto": "docs/howto.md"}', encoding="utf-8")
    site = SimpleNamespace(srcdir=tmp_path)
    monkeypatch.setattr(extension, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project]\n", encoding="utf-8")

    def context(page: str) -> dict[str, str]:
        found: dict[str, str] = {}
        extension.page_source(site, page, "", found, None)
        return found

    monkeypatch.delenv("MINIKV_REPOSITORY", raising=False)
    assert "origin_address" not in context("howto")
    monkeypatch.setenv("MINIKV_REPOSITORY", "https://github.com/someone/minikv/")
    expected = "https://github.com/someone/minikv/edit/main/docs/howto.md"
    assert context("howto")["origin_address"] == expected
    assert "origin_address" not in context("search")
    monkeypatch.setenv("MINIKV_BRANCH", "draft")
    assert "/edit/draft/" in context("howto")["origin_address"]


RESULTS = """\
| measure | contender | value | against | ratio |
|---|---|---|---|---|
| decode at 16 | exact/numba | 1 ms | transformers 2.0 ms | {first} |
| decode at 512 | exact/numba | 1 ms | transformers 2.0 ms | {second} |
| decode at 512 | exact/numba | 1 ms | transformers of another kind 2.0 ms | 9 |
"""


def test_the_conclusions_are_those_of_the_table():
    said = speed_page.conclusions(RESULTS.format(first="0.50", second="0.40"))
    assert said[2:] == [
        "| time of a decoded token | `exact/numba` | transformers | 0.40 to 0.50 | **less** |"
    ]
    assert "**more**" in speed_page.conclusions(RESULTS.format(first="1.10", second="2"))[2]
    with pytest.raises(SystemExit):
        speed_page.conclusions(RESULTS.replace("exact/numba", "other").format(first=1, second=1))


def test_every_question_about_speed_is_answered_by_the_committed_results():
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    assert len(speed_page.conclusions(results)) == 2 + len(speed_page.QUESTIONS)


def test_every_paper_that_is_cited_is_on_the_page_of_papers():
    page = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    cited = set(papers_page.cited())
    assert len(cited) > 10
    assert cited <= papers_page.numbers(page + papers_page.also_cited(page))
    less = page.replace("2309.17453", "")
    assert "arXiv 2309.17453" in papers_page.also_cited(less)


def test_every_page_has_a_place_on_the_site():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = [path.stem for path in (ROOT / "docs").glob("*.md")]
    whole = outline.with_the_rest(index, set(pages) - {"index", "404"})
    assert set(pages) - {"index", "404"} <= outline.listed(whole)


def test_load_model_and_generate_come_first_in_the_reference():
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    first, second, *others = outline.parts(reference).values()
    names = re.findall(r"^   (minikv\.\S+)$", first, re.MULTILINE)
    assert [name.rsplit(".", 1)[1] for name in names[:3]] == ["load", "Model", "generate"]
    assert "minikv.model\n" in second
    assert len(others) >= 4


def test_every_plot_of_the_chapters_gets_words_of_its_own():
    cells = [
        {"cell_type": "markdown", "source": "## Bytes"},
        {
            "cell_type": "code",
            "source": 'axes.set_ylabel("MB")',
            "metadata": {},
            "outputs": [{"data": {"image/png": ""}}],
        },
        {"cell_type": "code", "source": "1", "metadata": {}, "outputs": []},
    ]
    alt_text.describe(cells)
    assert cells[1]["metadata"]["mystnb"]["image"]["alt"] == "Plot: Bytes. Up: MB."
    assert cells[2]["metadata"] == {}


def test_the_page_of_the_proof_has_every_golden_value_and_every_claim():
    page = proof_page.fragment()
    known = json.loads(proof_page.GOLDEN.read_text(encoding="utf-8"))
    models = re.findall(r'data-model="(.+?)"', page)
    assert models == ["tiny", *(f"random: {name}" for name in CONFIGS)]
    for name in models:
        digits = known[name]["fingerprint"]
        assert f"<code>{digits[:32]}<wbr>{digits[32:]}</code>" in page
    assert re.findall(r'data-claim="(.+?)"', page) == list(CLAIMS)


def test_the_browser_is_not_told_what_it_should_find():
    packed = proof_page.packed()
    assert packed == proof_page.packed()
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        contents = b"".join(archive.read(name) for name in archive.namelist())
    known = json.loads(proof_page.GOLDEN.read_text(encoding="utf-8"))
    assert known["tiny"]["weights"].encode() in contents
    for value in known.values():
        assert value["fingerprint"].encode() not in contents


@pytest.fixture
def unpacked(tmp_path) -> Path:
    """The zip file of the page, alone in a folder."""
    archive = tmp_path / "minikv.zip"
    archive.write_bytes(proof_page.packed())
    return archive


def told(archive: Path, **options: object) -> list[dict[str, object]]:
    """The events of the page's program, run by this Python with NumPy alone."""
    program = (
        "import sys\n"
        "for name in ('safetensors', 'tokenizers', 'numba', 'threadpoolctl', 'jinja2'):\n"
        "    sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(archive)!r})\n"
        "import proof\n"
        "proof.main(sys.argv[1])\n"
    )
    command = [sys.executable, "-c", program, json.dumps(options)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=archive.parent, check=True)
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_the_program_of_the_page_needs_numpy_alone(unpacked):
    events = told(unpacked, cases=1, fault="")
    known = json.loads(proof_page.GOLDEN.read_text(encoding="utf-8"))
    found = {event["name"]: event for event in events if event["kind"] == "fingerprint"}
    assert list(found) == list(proof_page.golden())
    for name, event in found.items():
        assert event["same_weights"]
        assert event["exact"] == known[name]["fingerprint"] != event["float32"]
    verdicts = {event["id"]: event["verdict"] for event in events if event["kind"] == "claim"}
    assert list(verdicts) == list(CLAIMS)
    assert events[-1]["kind"] == "done"


def test_a_fault_that_is_not_known_is_an_error_in_a_line(unpacked):
    assert told(unpacked, cases=1, fault="none-such") == [
        {"kind": "error", "text": "KeyError: 'none-such'"}
    ]


def test_every_fault_of_the_page_is_one_of_the_mutants():
    known = tomllib.loads(proof_page.MUTANTS.read_text(encoding="utf-8"))
    assert set(proof_page.FAULTS) <= set(known)


@pytest.mark.slow
def test_keys_turned_by_their_place_in_the_call_leave_fingerprints_and_refute_t3(unpacked):
    events = told(unpacked, cases=8, fault="k-position-within-the-call")
    known = json.loads(proof_page.GOLDEN.read_text(encoding="utf-8"))
    for event in events:
        if event["kind"] == "fingerprint":
            assert event["exact"] == known[event["name"]]["fingerprint"]
    verdicts = {event["id"]: event["verdict"] for event in events if event["kind"] == "claim"}
    refuted = [name for name, verdict in verdicts.items() if verdict == "FAILS"]
    assert "T3" in refuted
    assert len(refuted) == 6
