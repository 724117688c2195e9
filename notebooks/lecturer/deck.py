"""Slides of a chapter, taken from its notebook: nothing on a slide is written anywhere else.

A slide shows headings, formulas, lists, tables, pictures, code and what it printed, plots, and of
each paragraph the sentence that it begins with and those with a word in bold. The whole paragraph
is in the speaker's notes. Where another sentence says more, ``notes/NN.md`` names it by how it
begins, after ``Show:``; a beginning that the chapter no longer has fails the build.
"""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import alt_text
import formulas
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from lecturer.notes import Notes, without_number

HEIGHT = 585  # pixels below the title, of a slide that is 720 high
TEXT_ONLY = 440
ENOUGH = 110  # letters of a paragraph
SHORT = 24  # letters of a sentence that needs the next one
FORMULA = 64  # letters of one that is set smaller
LETTERS = 80  # that fit into a line of text
CODE_LINES = 20
DENSE_LINES = 26  # of one function or class, in smaller letters
LEAD = 120  # pixels of text above a plot
TASK = re.compile(r"Write \d+: ")
DETAILS = re.compile(r"<details><summary>(.*?)</summary>(.*?)</details>", re.DOTALL)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:)[^)\s]+\)")
PICTURE = re.compile(r"^!\[([^\]]*)\]\(([^)]+)\)$", re.DOTALL)
SENTENCE = re.compile(r"(?<=[.?!])(?:[)\"*]*)\s+(?=[A-Z*`\"($\[])")
SPAN = re.compile(r"`[^`]*`|\$[^$]*\$|\([^()]*\)|\"[^\"]*\"")
NAVIGATION = ("*Next*:", "*Before*:")
ASIDE = re.compile(r"^\(.*\)$", re.DOTALL)


@dataclass
class Slide:
    """One slide.

    Attributes
    ----------
    title : str
        HTML.
    kind : str
        ``"title"``, ``"text"``, ``"plot"``, ``"picture"``, ``"predict"`` or ``"write"``.
    parts, notes : list of str
        HTML: what is shown, and what the speaker sees besides.
    height : int
        Of the parts, in pixels, as far as one can tell without a browser.
    """

    title: str
    kind: str = "text"
    parts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    height: int = 0


@dataclass(frozen=True)
class Block:
    """A part of a cell of text: its kind, its Markdown, and what it is folded under."""

    kind: str
    text: str
    title: str = ""


def _formula(text: str, options: dict[str, Any]) -> str:
    block = bool(options["display_mode"])
    made = formulas.mathml(text, block)
    if not block:
        return made
    lines = max(plain_length(line) for line in text.split(r"\\"))
    return f'<div class="formula{" long" if lines > FORMULA else ""}">{made}</div>'


MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")
MARKDOWN.use(dollarmath_plugin, renderer=_formula, allow_space=True)


def rendered(text: str) -> str:
    """Markdown as HTML; of links to files of the repository the words are left."""
    return MARKDOWN.render(LINK.sub(r"\1", text)).strip()


def inline(text: str) -> str:
    """The same without a paragraph around it."""
    return MARKDOWN.renderInline(LINK.sub(r"\1", text)).strip()


def blocks(text: str) -> Iterator[Block]:
    """The parts of a cell of text, in order."""
    pieces = DETAILS.split(text)
    for at in range(0, len(pieces), 3):
        yield from _unfolded(pieces[at])
        if at + 1 < len(pieces):
            yield Block("details", pieces[at + 2].strip(), pieces[at + 1])


def _unfolded(text: str) -> Iterator[Block]:
    lines = text.split("\n")
    for token in MARKDOWN.parse(text):
        if token.level or token.map is None or token.type.endswith("_close"):
            continue
        source = "\n".join(lines[slice(*token.map)]).strip()
        kind = token.type.removesuffix("_open")
        if kind == "heading":
            yield Block(token.tag, source.lstrip("# "))
        elif kind == "paragraph" and PICTURE.match(source):
            yield Block("picture", source)
        else:
            yield Block(kind, source)


def sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph.

    Examples
    --------
    >>> sentences("One (as in Xiao et al. 2023). *Two* is `a. B`. (An aside.) `c` is four.")
    ['One (as in Xiao et al. 2023).', '*Two* is `a. B`.', '(An aside.)', '`c` is four.']
    """
    text = " ".join(paragraph.split())
    hidden = SPAN.sub(_inside_hidden, text)
    edges = [0, *(found.end() for found in SENTENCE.finditer(hidden)), len(text)]
    return [text[a:b].strip() for a, b in pairwise(edges) if text[a:b].strip()]


def _inside_hidden(span: re.Match[str]) -> str:
    """Code, a formula, brackets or a quotation, of which nothing inside ends a sentence."""
    whole = span[0]
    return whole[0] + "x" * (len(whole) - 3) + whole[-2:] if len(whole) > 3 else whole


def joined(found: list[str], kept: set[int]) -> list[str]:
    """The sentences with these numbers, those that follow each other in one piece."""
    pieces: list[str] = []
    for at in sorted(kept):
        if at - 1 in kept:
            pieces[-1] += " " + found[at]
        else:
            pieces.append(found[at])
    return pieces


def key_sentences(paragraph: str) -> list[str]:
    """What of a paragraph a slide shows: its beginning, and what has a word in bold; proofs whole.

    Examples
    --------
    >>> key_sentences("It grows. A long tail follows. **All** of it counts.")
    ['It grows. A long tail follows. **All** of it counts.']
    >>> key_sentences("(An aside.)")
    []
    """
    if ASIDE.match(paragraph.strip()):
        return []
    if is_whole(paragraph):
        return [paragraph]
    found = sentences(paragraph)
    kept = {0} | {at for at, sentence in enumerate(found) if "**" in sentence}
    for at in (1, 2):  # a short beginning is seldom enough
        if len(found) > at and sum(len(found[each]) for each in range(at)) < ENOUGH:
            kept.add(at)
    kept |= {at + 1 for at in kept if len(found[at]) < SHORT and at + 1 < len(found)}
    return joined(found, {at for at in kept if at == 0 or not ASIDE.match(found[at])})


def is_whole(paragraph: str) -> bool:
    """Whether nothing of it may be left out: a theorem, or a proof."""
    return paragraph.startswith(("**Theorem", "*Proof")) or r"\square" in paragraph


def plain_length(markdown: str) -> int:
    """About how many letters wide a text is when it is drawn."""
    words = re.sub(r"\\[a-zA-Z]+|[{}^_*`$\\]", "", markdown)
    return len(words)


class Maker:
    """Makes the slides of one chapter.

    Parameters
    ----------
    chapter : str
        Two digits.
    notes : Notes
        The lecturer's notes on it.
    """

    def __init__(self, chapter: str, notes: Notes) -> None:
        self.chapter = chapter
        self.notes = notes
        self.slides: list[Slide] = []
        self.section = ""
        self.mode = "title"
        self.open: Slide | None = None  # to which the next part is added, if it fits
        self.captioned: Slide | None = None  # a plot that waits for what it shows
        self.writing: Slide | None = None
        self.asked: list[str] = []
        self.unseen = {beginning: title for title, s in notes.show.items() for beginning in s}

    def deck(self, cells: list[Any]) -> list[Slide]:
        """All of them."""
        for cell in cells:
            if cell["cell_type"] == "markdown":
                parts = list(blocks("".join(cell["source"])))
                for block, following in zip_longest(parts, parts[1:]):
                    if following is not None and TASK.match(following.text):
                        self.captioned = None  # it leads to the task, and says nothing of a plot
                    self._text(block)
            elif self.mode not in ("exercises", "title"):
                self._code(cell)
            elif self.mode == "title":
                self.open = None
                if printed(cell["outputs"]):
                    self._code(cell)
        self._exercises()
        for beginning, title in self.unseen.items():
            raise SystemExit(
                f"notebooks/lecturer/notes/{self.chapter}.md: no sentence under {title!r} begins "
                f"with {beginning!r}: name it as the chapter has it now"
            )
        return self.slides

    def _new(self, kind: str = "text") -> Slide:
        slide = Slide(inline(self.section), kind)
        if not any(without_number(old.title) == without_number(slide.title) for old in self.slides):
            said = self.notes.board.get(without_number(self.section), "")
            slide.notes += [f'<div class="board">{rendered(said)}</div>'] if said else []
        self.slides.append(slide)
        self.captioned = None
        return slide

    def _add(self, part: str, height: int, limit: int = HEIGHT) -> None:
        if self.open is None or (self.open.parts and self.open.height + height > limit):
            self.open = self._new()
        self.open.parts.append(part)
        self.open.height += height

    def _text(self, block: Block) -> None:
        if block.kind == "h1":
            self.section = block.text
            self.open = self._new("title")
        elif block.kind == "h2":
            self._heading(block.text)
        elif self.mode == "exercises":
            if block.kind == "h3":
                self.asked.append(block.text)
        elif block.kind == "h3" and not TASK.match(block.text):
            self._heading(block.text)
        elif block.kind == "h3":
            self.writing = self._new("write")
            self.writing.title = inline(block.text)
            self.open = None
        elif block.kind == "picture":
            self._picture(block.text)
        elif block.kind == "details":
            self._details(block)
        elif self.writing is not None:
            self.writing.parts.append(rendered(block.text))
            self.writing.height += 36 * (1 + plain_length(block.text) // 78) + 14
        elif block.kind == "paragraph":
            self._paragraph(block.text)
        else:
            self._whole(block)

    def _heading(self, title: str) -> None:
        self.open = self.captioned = self.writing = None
        self.section = title
        self.mode = "exercises" if without_number(title) == "Exercises" else "section"

    def _paragraph(self, text: str) -> None:
        if text.startswith(NAVIGATION):
            return
        if text.startswith("**Predict before you run.**"):
            slide = self._new("predict")
            slide.parts.append(rendered(text))
            self.open = None
            return
        if self.mode == "title" and self.open is not None and self.open.kind == "title":
            self._title_line(text)
            return
        chosen = self._chosen(text)
        if self.captioned is not None and not text.startswith("**Theorem"):
            self._caption(chosen, text)
            return
        for sentence in chosen:
            self._sentence(sentence)
        (self.open or self.slides[-1]).notes.append(rendered(text))

    def _caption(self, chosen: list[str], text: str) -> None:
        """What a plot shows, below it; what does not fit there goes on."""
        slide, self.captioned = self.captioned, None
        assert slide is not None
        slide.notes.append(rendered(text))
        fitting: list[str] = []
        length = 0
        for sentence in chosen:
            length += plain_length(sentence)
            if fitting and length > 3 * LETTERS:
                break
            fitting.append(sentence)
        if fitting:
            slide.parts.append(f'<p class="caption">{inline(" ".join(fitting))}</p>')
        for sentence in chosen[len(fitting) :]:
            self._sentence(sentence)

    def _sentence(self, text: str) -> None:
        lines = 1 + plain_length(text) // LETTERS
        below_code = self.open is not None and any("<pre" in part for part in self.open.parts)
        limit = HEIGHT if below_code else TEXT_ONLY
        self._add(f"<p>{inline(text)}</p>", 40 * lines + 14, limit)

    def _title_line(self, text: str) -> None:
        assert self.open is not None
        if text.startswith("*Time*"):
            self.open.parts.append(f'<p class="needs">{inline(text)}</p>')
        elif len(self.open.parts) == 0:
            self.open.parts.append(rendered(text))
        self.open.notes.append(rendered(text))

    def _chosen(self, text: str) -> list[str]:
        """The sentences of a paragraph that are shown."""
        wanted = self.notes.show.get(without_number(self.section))
        if wanted is None:
            return key_sentences(text)
        if is_whole(text):
            return [text]
        found, kept = sentences(text), set()
        for at, sentence in enumerate(found):
            for beginning in wanted:
                if sentence.startswith(beginning):
                    self.unseen.pop(beginning, None)
                    kept.add(at)
        return joined(found, kept)

    def _whole(self, block: Block) -> None:
        """A formula, a list or a table."""
        self.captioned = None
        lines = block.text.count("\n") + 1
        if block.kind == "math_block":
            height = 100 if "frac" in block.text or "sum" in block.text else 80
            height *= 1 + block.text.count(r"\\ ")
        elif block.kind == "table":
            height = sum(40 + 36 * (plain_length(row) > 95) for row in block.text.split("\n"))
        elif block.kind.endswith("list"):
            items = re.split(r"^\s*(?:\*|\d+\.) ", block.text, flags=re.MULTILINE)[1:]
            height = sum(39 * (1 + plain_length(item) // (LETTERS - 4)) + 10 for item in items)
        else:
            height = 40 * lines
        self._add(rendered(block.text), height)

    def _details(self, block: Block) -> None:
        if not self.slides:
            return
        slide = self.slides[-1]
        if slide.kind == "predict" and block.title == "Answer":
            slide.parts.append(f'<div class="answer fragment">{rendered(block.text)}</div>')
        else:
            said = rendered(block.text)
            slide.notes.append(f"<p><b>{html.escape(block.title)}</b></p>{said}")

    def _figure(self, kind: str) -> Slide:
        """A slide for a plot or a picture; what leads to it stands above it, if that is short."""
        before = self.open
        if before is None or before.kind != "text" or before.height > LEAD:
            return self._new(kind)
        before.kind = kind
        return before

    def _picture(self, text: str) -> None:
        found = PICTURE.match(text)
        assert found is not None
        slide = self._figure("picture")
        words = html.escape(" ".join(found[1].split()), quote=True)
        slide.parts.append(f'<img src="{found[2]}" alt="{words}">')
        if is_tall(found[2]):
            slide.kind = "picture tall"
        self.open, self.captioned = None, slide

    def _code(self, cell: Any) -> None:
        tags = cell["metadata"].get("tags", [])
        source = "".join(cell["source"])
        if "solution" in tags:
            if self.writing is not None:
                shown = listing(source.partition("\n")[2])
                self.writing.notes.append(f"<p><b>Solution</b></p>{shown}")
            self.writing = None
            return
        if self.writing is not None and "_ = e" in source:
            self._stub(source)
            return
        self.writing = None
        self._cell(source, cell)

    def _stub(self, source: str) -> None:
        assert self.writing is not None
        stub = re.sub(r"^_ = e\d\d\..*$", "", source, flags=re.MULTILINE).strip()
        height = code_height(stub)
        if self.writing.height + height > HEIGHT:
            title = self.writing.title
            notes = self.writing.notes
            self.writing = self._new("write")
            self.writing.title, self.writing.notes = title, notes
        self.writing.parts.append(listing(stub))

    def _cell(self, source: str, cell: Any) -> None:
        plots = [
            o["data"]["image/png"] for o in cell["outputs"] if "image/png" in o.get("data", {})
        ]
        said = printed(cell["outputs"])
        if not plots and not said and len(source.split("\n")) > CODE_LINES:
            self._pieces(source)
        elif not plots:
            self._listing_and_output(source, said)
        for plot in plots:
            slide = self._figure("plot")
            words = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", self.section)
            data = "".join(plot.split())
            alt = html.escape(words, quote=True)
            slide.parts.append(f'<img src="data:image/png;base64,{data}" alt="{alt}">')
            if said and len(said.split("\n")) <= 3:
                slide.parts.append(output(said))
            elif said:
                self.open = None
                self._add(output(said), code_height(said))
            slide.notes.append(f"<p><b>Code</b></p>{listing(source)}")
            self.open, self.captioned = None, slide

    def _pieces(self, source: str) -> None:
        """Functions and classes of a long cell, one after the other, as far as they fit."""
        for node in ast.parse(source).body:
            piece = ast.get_source_segment(source, node) or ""
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                if len(piece.split("\n")) <= DENSE_LINES:
                    self._add(listing(piece), code_height(piece))
                else:
                    self._outline(node, source)

    def _outline(self, node: ast.FunctionDef | ast.ClassDef, source: str) -> None:
        """The methods of a class that fit, the first of them that is of interest alone."""
        for inner in node.body:
            piece = ast.get_source_segment(source, inner) or ""
            lines = len(piece.split("\n"))
            if isinstance(inner, ast.FunctionDef) and 3 < lines <= CODE_LINES:
                shown = f"class {node.name}:\n    ...\n\n    {piece}"
                self.open = None
                self._add(listing(shown), code_height(shown))

    def _listing_and_output(self, source: str, said: str) -> None:
        code = without_setup(source)
        fits = 0 < len(code.split("\n")) <= CODE_LINES and bool(code)
        parts = [(listing(code), code_height(code))] if fits else []
        if said:
            parts.append((output(said), code_height(shortened(said))))
        height = sum(each for _, each in parts)
        if len(parts) == 2 and height > HEIGHT and len(code.split("\n")) <= 2:
            parts = parts[1:]
            fits = False
        if self.open is not None and self.open.height + height > HEIGHT:
            self.open = None
        for part, each in parts:
            self._add(part, each)
        if not fits and self.open is not None:
            self.open.notes.append(f"<p><b>Code</b></p>{listing(source)}")
        self.captioned = None

    def _exercises(self) -> None:
        if not self.asked:
            return
        self.section = "Exercises"
        slide = self._new("list")
        items = "".join(f"<li>{inline(title)}</li>" for title in self.asked)
        slide.parts.append(f"<ul>{items}</ul>")


def is_tall(picture: str) -> bool:
    """Whether a picture of the course is so high that words stand beside it."""
    svg = (Path(__file__).parents[1] / picture).read_text(encoding="utf-8")
    size = re.search(r'viewBox="0 0 (\d+) (\d+)"', svg)
    return size is not None and int(size[2]) > int(size[1])


def without_setup(source: str) -> str:
    """Code without its imports and without settings of plots."""
    lines = source.split("\n")
    for node in reversed(ast.parse(_without_magic(source)).body):
        text = ast.get_source_segment(source, node) or ""
        is_import = isinstance(node, (ast.Import, ast.ImportFrom))
        if is_import or text.startswith(("plt.rcParams", "sys.path", "os.environ")):
            del lines[node.lineno - 1 : node.end_lineno]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _without_magic(source: str) -> str:
    return re.sub(r"^[%!].*$", "pass", source, flags=re.MULTILINE)


def printed(outputs: list[Any]) -> str:
    """What a cell printed, or the value that it ended with."""
    parts = []
    for each in outputs:
        text = each.get("text") or each.get("data", {}).get("text/plain", "")
        text = "".join(text)
        if not text.startswith(("<Figure", "<IPython.core.display.Image")):
            parts.append(text)
    return "".join(parts).strip("\n")


def shortened(said: str) -> str:
    """Output of which the middle is left out where it is long."""
    lines = said.split("\n")
    if len(lines) <= CODE_LINES:
        return said
    half = CODE_LINES // 2
    return "\n".join([*lines[: half + 1], "...", *lines[-half + 2 :]])


def code_height(text: str) -> int:
    """Of a listing or an output, in pixels."""
    lines = sum(1 + max(0, len(line) - 1) // 98 for line in text.split("\n"))
    return (26 if lines <= CODE_LINES else 21) * lines + 30


def listing(source: str) -> str:
    """Python with colours, narrower letters where a line is long."""
    coloured = highlight(source, PythonLexer(), HtmlFormatter(nowrap=True)).rstrip()
    return f'<pre class="code{width(source)}">{coloured}</pre>'


def width(text: str) -> str:
    """A class for smaller letters, where lines are many or long."""
    lines = text.split("\n")
    if len(lines) > CODE_LINES:
        return " dense"
    return " long" if max(map(len, lines)) > 84 else ""


def output(said: str) -> str:
    """What was printed."""
    text = shortened(said)
    return f'<pre class="output{width(text)}">{html.escape(text)}</pre>'


def slides(path: Path, notes: Notes) -> list[Slide]:
    """The slides of a chapter's notebook."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    alt_text.describe(notebook.cells)
    return Maker(path.name[:2], notes).deck(notebook.cells)
