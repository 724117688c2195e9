"""The pictures of the course: ``pictures/*.svg``, drawn from what the library itself says.

    python notebooks/pictures.py            # draw them again

Names and shapes of activations, who shares whose keys, who sees whom, what a cache holds, and every
number in a sum are asked of `minikv` while the picture is drawn; `tests/notebooks/test_pictures.py`
asks for a new drawing where the library has changed. Each is 640 wide with letters of 16 and more,
so that it can be read on a slide and on a telephone, and paints its own ground, light or dark as
the `color-scheme` of the page is that shows it, or the reader's system.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

import minikv
from minikv.arithmetic import Float32, Sight

FOLDER = Path(__file__).parent / "pictures"
WIDTH = 640
CONFIG = minikv.tiny_config(
    hidden_size=48, intermediate_size=80, num_attention_heads=6, num_key_value_heads=2, head_dim=8
)
LETTERS = {5: "T", 48: "D", 80: "F", 6: "H", 2: "G", 8: "d"}
"""Sizes of the model above and of a text of five tokens; in attention S is T."""

STYLE = """
svg { --ink: #1b1f24; --soft: #59636e; --paper: #ffffff; --one: #0072b2; --two: #b45309;
  --three: #00775a; --fill: #dcebf7; --warm: #fbe6cf; --grey: #e7eaee;
  font: 18px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e6e9ed; --soft: #a8b0b9; --paper: #131416; --one: #56b4e9; --two: #e69f00;
    --three: #2fc79a; --fill: #17344a; --warm: #4a3410; --grey: #2a2e33; }
}
text { fill: var(--ink); text-anchor: middle; }
.start { text-anchor: start; } .end { text-anchor: end; }
.soft { fill: var(--soft); font-size: 16px; } .head { font-weight: 600; }
.code { font: 16px ui-monospace, monospace; }
.paper { fill: var(--paper); }
.box { fill: var(--paper); stroke: var(--soft); stroke-width: 1.5; }
.one { fill: var(--fill); stroke: var(--one); stroke-width: 2; }
.two { fill: var(--warm); stroke: var(--two); stroke-width: 2; }
.none { fill: var(--grey); stroke: var(--paper); stroke-width: 1.5; }
.line { stroke: var(--soft); stroke-width: 2; fill: none; }
.made { stroke: var(--two); stroke-width: 2.5; stroke-dasharray: 6 5; fill: none; }
.stream { stroke: var(--one); stroke-width: 7; }
"""


@dataclass
class Picture:
    """What is drawn so far."""

    height: int
    title: str
    alt: str
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, words: str, kind: str = "") -> None:
        """Words, in the middle of a place unless the kind says otherwise."""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>')

    def box(self, x: float, y: float, width: float, height: float, kind: str = "box") -> None:
        """A frame, from its upper left corner."""
        shape = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4"'
        self.parts.append(f'<rect {shape} class="{kind}"/>')

    def line(self, *points: tuple[float, float], kind: str = "line", arrow: bool = False) -> None:
        """A line through points, with a head at its end if it is an arrow."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        head = ' marker-end="url(#head)"' if arrow else ""
        self.parts.append(f'<polyline points="{path}" class="{kind}"{head}/>')

    def svg(self) -> str:
        """The file."""
        head = (
            '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6" '
            'markerHeight="6" orient="auto-start-reverse">'
            '<path d="M0 0L10 5L0 10z" style="fill: var(--soft)"/></marker>'
        )
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" '
            f'width="{WIDTH}" height="{self.height}" role="img">',
            f"<title>{escape(self.title)}</title>",
            f"<desc>{escape(self.alt)}</desc>",
            f"<style>{STYLE}</style>",
            f"<defs>{head}</defs>",
            f'<rect width="{WIDTH}" height="{self.height}" class="paper"/>',
            *self.parts,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"


def activations() -> dict[str, str]:
    """The activations of a block by their names, with their shapes in letters."""
    seen = minikv.random_model(CONFIG, 1).run_with_cache([3, 1, 4, 1, 5])[1]
    found = {}
    for name, value in seen.items():
        if name.startswith("blocks.0."):
            letters = [LETTERS[size] for size in value.shape]
            if letters[-2:] == ["T", "T"]:
                letters[-1] = "S"
            found[name.removeprefix("blocks.0.")] = f"({', '.join(letters)})"
    return found


ROWS = (
    ("hook_resid_pre",),
    ("ln1.hook_normalized",),
    ("attn.hook_q", "attn.hook_k", "attn.hook_v"),
    ("attn.hook_rot_q", "attn.hook_rot_k"),
    ("attn.hook_attn_scores",),
    ("attn.hook_pattern",),
    ("attn.hook_z",),
    ("hook_attn_out",),
    ("hook_resid_mid",),
    ("ln2.hook_normalized",),
    ("mlp.hook_pre", "mlp.hook_pre_linear"),
    ("mlp.hook_post",),
    ("hook_mlp_out",),
    ("hook_resid_post",),
)


def block() -> Picture:
    """One block: the stream on the left, what reads it and adds to it on the right."""
    picture = Picture(
        760,
        "One block and its names",
        "The residual stream runs down the left. Attention reads it, makes queries, keys and "
        "values, turns queries and keys, weighs values by the pattern, and adds hook_attn_out; the "
        "MLP reads the sum and adds hook_mlp_out. Each array has its name and its shape.",
    )
    shapes, step, x = activations(), 53, 46
    picture.line((x, 8), (x, 752), kind="stream")
    for number, row in enumerate(ROWS):
        y = 12 + step * number
        left, room = (84.0, 548.0) if not row[0].startswith("hook_resid") else (8.0, 330.0)
        width = (room - 8 * (len(row) - 1)) / len(row)
        for place, name in enumerate(row):
            at_left = left + place * (width + 8)
            kind = "one" if name.startswith("hook_resid") else "box"
            kind = "two" if name in ("hook_attn_out", "hook_mlp_out") else kind
            picture.box(at_left, y, width, 42, kind)
            middle = at_left + width / 2
            picture.text(middle, y + 18, name, "code")
            picture.text(middle, y + 36, shapes[name], "soft")
        if row[0].startswith("ln"):
            picture.line((x, y + 21), (left, y + 21), arrow=True)
        if row[0] in ("hook_attn_out", "hook_mlp_out"):
            picture.line((left, y + 21), (x + 5, y + 21), arrow=True)
            picture.text(x + 22, y + 14, "+", "head")
    return picture


def sharing() -> Picture:
    """Which key head each query head reads."""
    heads = CONFIG.num_attention_heads
    groups = CONFIG.num_key_value_heads
    k = np.arange(groups, dtype=np.float32)[None, :, None]
    scores = Float32().scores(np.ones((1, heads, 1), np.float32), k, 1.0)
    reads = scores[:, 0, 0].astype(int)
    picture = Picture(
        270,
        "Grouped-query attention",
        f"{heads} query heads above, {groups} key and value heads below; query heads "
        + "; ".join(
            f"{', '.join(map(str, np.flatnonzero(reads == group)))} read head {group}"
            for group in range(groups)
        )
        + ".",
    )
    step = WIDTH / heads
    for head, group in enumerate(reads):
        x, below = step * (head + 0.5), WIDTH * (group + 0.5) / groups
        picture.line((x, 72), (below, 170))
        picture.box(x - 42, 30, 84, 42, "box")
        picture.text(x, 57, f"q {head}")
    for group in range(groups):
        x = WIDTH * (group + 0.5) / groups
        picture.box(x - 80, 170, 160, 42, "one")
        picture.text(x, 197, f"k {group}, v {group}")
    picture.text(WIDTH / 2, 20, f"H = {heads} query heads", "soft")
    picture.text(WIDTH / 2, 250, f"G = {groups} heads of keys and values: the cache keeps these")
    return picture


def mask() -> Picture:
    """Who sees whom: causal, and with a window."""
    tokens, window = 7, 3
    everybody, everything = np.arange(tokens), slice(0, tokens)
    picture = Picture(
        370,
        "The causal mask and a window",
        f"Two squares of {tokens} queries by {tokens} keys. Left: each query sees all keys up "
        f"to its own; right: only the newest {window}.",
    )
    for number, (title, size) in enumerate((("causal", None), (f"window of {window}", window))):
        hidden = Sight(everybody, everybody, size).hidden(everything, everything)
        left, cell = 62 + 312 * number, 36
        picture.text(left + cell * tokens / 2, 26, title, "head")
        for query in range(tokens):
            picture.text(left - 16, 64 + cell * query, str(query), "soft")
            picture.text(left + cell * (query + 0.5), 40 + cell * tokens + 22, str(query), "soft")
            for key in range(tokens):
                kind = "none" if hidden[query, key] else "one"
                picture.box(left + cell * key, 40 + cell * query, cell - 3, cell - 3, kind)
        picture.text(left + cell * tokens / 2, 344, "key read", "soft")
    picture.parts.append('<text transform="rotate(-90 20 166)" x="20" y="166">query</text>')
    return picture


def cache() -> Picture:
    """What a full cache holds after each call."""
    model = minikv.random_model(CONFIG, 1)
    held, calls = model.new_cache("full"), ([3, 1, 4, 1], [5], [9], [2])
    rows = []
    for tokens in calls:
        before = held.seen
        model.forward([tokens], [held], "none")
        rows.append((before, held.seen))
    total = rows[-1][1]
    picture = Picture(
        300,
        "A cache over time",
        "After each of four calls the keys and values that the cache holds: "
        + ", ".join(f"{after} tokens, {after - before} of them new" for before, after in rows)
        + ".",
    )
    picture.text(150, 24, "position", "soft end")
    for position in range(total):
        picture.text(196 + 60 * position, 24, str(position), "soft")
    for number, (before, after) in enumerate(rows):
        y = 38 + 52 * number
        picture.text(156, y + 28, "the prompt" if not number else f"step {number}", "end")
        for position in range(after):
            kind = "two" if position >= before else "one"
            picture.box(170 + 60 * position, y, 52, 42, kind)
            picture.text(196 + 60 * position, y + 27, "K V")
    picture.box(170, 258, 28, 24, "one")
    picture.text(206, 277, "kept from before", "start")
    picture.box(390, 258, 28, 24, "two")
    picture.text(426, 277, "made in this call", "start")
    return picture


def kv_direct() -> Picture:
    """Recent K and V, checkpoints of all tokens, and what is made from them."""
    model, budget = minikv.random_model(CONFIG, 1), 3
    held = model.new_cache("residual", budget=budget, checkpoints="embedding")
    model.forward([[3, 1, 4, 1, 5, 9, 2, 6]], [held], "none")
    total, stored = held.seen, held.stored
    picture = Picture(
        330,
        "KV-Direct",
        f"Of {total} tokens the newest {stored} keep keys and values. All keep one residual row; "
        f"from the first {total - stored} the blocks run again and make keys and values anew.",
    )
    picture.text(14, 24, "keys and values", "start head")
    picture.text(14, 274, "residual rows (checkpoints)", "start head")
    for position in range(total):
        x = 14 + 78 * position
        kept = position >= total - stored
        picture.box(x, 40, 66, 56, "one" if kept else "box")
        picture.text(x + 33, 74, "K V")
        if not kept:
            picture.line((x, 96), (x, 40), (x + 66, 40), (x + 66, 96), (x, 96), kind="made")
            picture.line((x + 33, 196), (x + 33, 100), kind="made", arrow=True)
        picture.box(x, 200, 66, 44, "one")
        picture.text(x + 33, 228, f"h {position}")
    picture.box(44, 126, 292, 40, "box")
    picture.text(190, 152, "replay: the blocks run again")
    picture.text(
        14, 310, f"kept: solid; made again at every step: dashed; budget {budget}", "start"
    )
    return picture


def rotate_half() -> Picture:
    """Which numbers of a head form a pair."""
    width = CONFIG.head_dim
    numbers = np.arange(width, dtype=np.float32)[None, None]
    still, quarter = np.zeros_like(numbers), np.ones_like(numbers)
    signs = np.concatenate([-quarter[..., : width // 2], quarter[..., width // 2 :]], axis=-1)
    turned = Float32().rope(numbers + 1, still, signs)[0, 0]  # a quarter turn: pairs change places
    picture = Picture(
        320,
        "Rotary positions: pairs of a head",
        f"A head of {width} numbers. Number i and number i + {width // 2} form a pair, which is "
        "turned by the position times the pair's frequency.",
    )
    for index in range(width):
        x = 40 + 70 * index
        picture.box(x, 40, 62, 44, "one" if index < width // 2 else "two")
        picture.text(x + 31, 68, f"x {index}")
        partner = int(abs(turned[index])) - 1
        if partner > index:
            depth = 110 + 24 * index
            ends = (x + 31, 70 * partner + 71)
            picture.line((ends[0], 84), (ends[0], depth), (ends[1], depth), (ends[1], 84))
    half = width // 2
    picture.text(180, 26, "first half", "soft")
    picture.text(460, 26, "second half", "soft")
    picture.text(320, 246, f"pair i: numbers i and i + {half}, angle p · θ^(−2i/d)")
    picture.text(320, 276, f"x i becomes x i cos − x (i+{half}) sin", "code")
    picture.text(320, 304, f"x (i+{half}) becomes x (i+{half}) cos + x i sin", "code")
    return picture


def sum_tree() -> Picture:
    """One sum in two orders, in float32."""
    terms = [np.float32(2**24), np.float32(1), np.float32(1), np.float32(1)]
    first = [terms[0] + terms[1]]
    first += [first[-1] + terms[2]]
    first += [first[-1] + terms[3]]
    left, right = terms[0] + terms[1], terms[2] + terms[3]
    picture = Picture(
        330,
        "One sum in two orders",
        f"2^24 + 1 + 1 + 1 in float32: one by one gives {int(first[-1]):,}, in pairs gives "
        f"{int(left + right):,}.",
    )

    def leaf(x: float, value: np.float32) -> None:
        picture.box(x - 34, 44, 68, 36, "one")
        picture.text(x, 68, "2^24" if value > 2 else f"{value:g}")

    def node(x: float, y: float, value: np.float32, *below: tuple[float, float]) -> None:
        for point in below:
            picture.line(point, (x, y))
        picture.box(x - 62, y, 124, 36, "box")
        over = int(value) - 2**24
        picture.text(x, y + 24, f"{value:g}" if value < 99 else f"2^24 + {over}")

    for start, title in ((0, "one after the other"), (320, "in pairs")):
        picture.text(start + 160, 26, title, "head")
        for number, value in enumerate(terms):
            leaf(start + 46 + 76 * number, value)
    node(84, 116, first[0], (46, 80), (122, 80))
    node(142, 184, first[1], (84, 152), (198, 80))
    node(200, 252, first[2], (142, 220), (274, 80))
    node(404, 130, left, (366, 80), (442, 80))
    node(556, 130, right, (518, 80), (594, 80))
    node(480, 236, left + right, (404, 166), (556, 166))
    picture.text(320, 318, "every partial sum is rounded to a float32", "soft")
    return picture


def grid() -> Picture:
    """Numbers moved to a grid, on which sums are exact."""
    step, numbers = 0.125, np.array([0.07, 0.3, 0.55, 0.71])
    shift = 1.5 * 2.0**52 * step
    moved = (numbers + shift) - shift
    total = float(moved.sum())
    picture = Picture(
        300,
        "The grid of exact arithmetic",
        f"Numbers {', '.join(f'{x:g}' for x in numbers)} are moved to the nearest multiples of "
        f"{step:g}: {', '.join(f'{x:g}' for x in moved)}. Their sum, {total:g}, is exact in any "
        "order.",
    )

    def place(value: float) -> float:
        return 40 + 560 * value

    picture.line((place(0), 150), (place(1), 150))
    for count in range(9):
        x = place(count * step)
        picture.line((x, 140), (x, 160))
        picture.text(x, 184, f"{count}", "soft")
    for before, after in zip(numbers, moved, strict=True):
        picture.text(place(before), 50, f"{before:g}")
        picture.line((place(before), 60), (place(after), 136), arrow=True)
        picture.box(place(after) - 7, 143, 14, 14, "two")
    counts = [round(value / step) for value in moved]
    picture.text(place(1) + 4, 118, "× g", "end soft")
    picture.text(320, 222, f"g = {step:g}: all become whole multiples of g")
    picture.text(320, 254, f"({' + '.join(map(str, counts))}) g = {sum(counts)} g, in any order")
    picture.text(320, 284, "below 2^53 g no addition rounds (T7)", "soft")
    return picture


PICTURES: dict[str, Callable[[], Picture]] = {
    "block": block,
    "sharing": sharing,
    "mask": mask,
    "cache": cache,
    "kv_direct": kv_direct,
    "rotate_half": rotate_half,
    "sum_tree": sum_tree,
    "grid": grid,
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")
        print(f"pictures/{name}.svg")


if __name__ == "__main__":
    main()
