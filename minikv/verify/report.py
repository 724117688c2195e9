"""What ``minikv prove`` runs, outside pytest, and the page that it writes.

Random cases come from NumPy's generator, smallest first, so that the first failure is a small one.
The page, ``minikv/data/report.html``, holds the formulas; this module fills in what was found.
"""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from string import Template
from typing import Any

import numpy as np

from ..config import FAMILIES, FULL, SLIDING, ModelConfig
from ..model import tiny_config
from .labels import certify
from .theorems import THEOREMS, Case, Refuted, Theorem, attention_loss, last_position_patch


def _certified(case: Case) -> None:
    if failures := certify(case.model.config).failures:
        raise Refuted(f"{failures[0]} (and {len(failures) - 1} more)")


def value_residual(first: dict[str, Any], name: str, value: Any) -> Any:
    """A hook, once `first` is bound: values of block 0 are carried past the stream."""
    return value + first.setdefault("v", value) if name.endswith("attn.hook_v") else value


CLAIMS = THEOREMS | {
    "D": Theorem(
        "D",
        "dataflow",
        "no label gets past the stream, on all inputs",
        _certified,
        lambda _: bool(certify(tiny_config(), (5,), lambda: partial(value_residual, {})).failures),
        "a stream that carries all state (values of block 0 are carried past it)",
    )
}
"""The theorems, and the dataflow certificate."""


@dataclass(frozen=True)
class Result:
    """What became of one claim.

    Parameters
    ----------
    id, name : str
    verdict : str
        ``holds``, ``FAILS``, or ``VACUOUS`` where the control found no difference.
    examples : int
        Cases on which it was checked.
    seconds : float
        Of checks and control together.
    failure : str
        Why it does not hold, and Python that reproduces it; empty where it does.
    control : str
        What dropping the hypothesis changed; empty where no difference was found.
    """

    id: str
    name: str
    verdict: str
    examples: int
    seconds: float
    failure: str
    control: str


def random_case(seed: int, size: float = 1.0, scale: float | None = None) -> Case:
    """A random shape, two texts and a way to cut them; `size`, up to 1, bounds all of them.

    Examples
    --------
    >>> case = random_case(7)
    >>> case == random_case(7), sum(case.chunks) == len(case.ids) == len(case.other)
    (True, True)
    """
    rng = np.random.default_rng(seed)

    def whole(low: int, high: int) -> int:
        return int(rng.integers(low, max(low, round(high * size)) + 1))

    groups, layers = whole(1, 3), whole(1, 4)
    types = tuple(rng.choice([FULL, SLIDING], layers).tolist()) if rng.integers(2) else ()
    config = ModelConfig(
        vocab_size=whole(5, 61),
        hidden_size=whole(1, 41),
        intermediate_size=whole(1, 53),
        num_hidden_layers=layers,
        num_attention_heads=groups * whole(1, 3),
        num_key_value_heads=groups,
        head_dim=2 * int(rng.choice([1, 2, 3, 5, 8, 32])),
        rms_norm_eps=float(rng.choice([1e-6, 1e-5, 1e-2])),
        rope_theta=float(rng.choice([2.0, 1e4, 1e6])),
        tie_word_embeddings=bool(rng.integers(2)),
        model_type=str(rng.choice([*FAMILIES])),
        layer_types=types if SLIDING in types else (),
        sliding_window=whole(1, 6) if SLIDING in types else None,
    )
    length = whole(4, 24)
    ids, other = rng.integers(0, config.vocab_size, (2, length)).tolist()
    cuts = np.flatnonzero(rng.random(length - 1) < rng.random()) + 1  # all calls, or next to none
    chunks = np.diff([0, *cuts, length]).tolist()
    scale = scale or float(rng.choice([0.01, 1.0, 3.0, 30.0]))
    return Case(config, tuple(ids), tuple(other), tuple(chunks), seed, scale)


def prove(claim: Theorem, cases: Iterable[Case], controls: Iterable[Case]) -> Result:
    """Check a claim on each case, then look for a case in which its control finds a difference."""
    began, examples, failure, control = time.perf_counter(), 0, "", ""
    try:
        for examples, case in enumerate(cases, 1):  # noqa: B007  (read after the loop)
            claim.check(case)
        for case in controls:
            if claim.control(case):
                control = f"without {claim.dropped}: {_difference(claim, case)}"
                break
    except Exception as error:  # a fault in the decoder may show as any error
        failure = (
            f"{type(error).__name__}: {error}\nfrom minikv.config import ModelConfig, RopeScaling\n"
            f"from minikv.verify.report import CLAIMS, Case\ncase = {case!r}\n"
            f"CLAIMS[{claim.id!r}].check(case), CLAIMS[{claim.id!r}].control(case)"
        )
    seconds = time.perf_counter() - began
    verdict = "FAILS" if failure else "holds" if control else "VACUOUS"
    return Result(claim.id, claim.name, verdict, examples, seconds, failure, control)


def _difference(claim: Theorem, case: Case) -> str:
    """How much a control changes, where its theorem has a number for it."""
    if claim.id == "T2":
        return f"D_KL = {last_position_patch(case, len(case.model.layers) // 2):.3g} nats"
    if claim.dropped == "exact sums":
        try:
            claim.check(replace(case, arithmetic="float32"))
        except Refuted as error:
            return str(error)
    return "not the same bits" if claim.id in THEOREMS else "refused"


def conclusion(results: Sequence[Result], on: str) -> str:
    """What the results establish, and what they do not."""
    verdicts = dict.fromkeys(CLAIMS, "not run") | {r.id: r.verdict for r in results}
    most = max((r.examples for r in results), default=0)
    notes = {"T9": "an inequality", "D": "all inputs of the shapes"}
    notes |= {r.id: f"on {r.examples}" for r in results if r.examples < most}
    held = [
        f"{id} ({notes[id]})" if id in notes else id
        for id, verdict in verdicts.items()
        if verdict == "holds"
    ]
    rest = [f"{id} ({verdict})" for id, verdict in verdicts.items() if verdict != "holds"]
    rest += ["other weights and texts (for arbitrary ones: proofs/rocq)", "other architectures"]
    found = f"{', '.join(held)}, each bit for bit unless said" if held else "nothing"
    return f"Established on {on}: {found}. Not established: {', '.join(rest)}, float32."


def page(results: Sequence[Result], case: Case, on: str, facts: Mapping[str, Any]) -> str:
    """The report as one HTML file that needs no other; the plots and the repr are of `case`."""
    losses = enumerate(last_position_patch(case, at) for at in range(len(case.model.layers)))
    points = [(at, np.log10(loss)) for at, loss in losses if loss > 0]
    fills = _plot("T2", points) | _plot("T9", _losses(case))
    fills |= {f"{id}_says": html.escape(claim.statement) for id, claim in CLAIMS.items()}
    fills |= dict.fromkeys((f"{id}_found" for id in CLAIMS), "Not run.")
    for r in results:
        found = f"{r.verdict}, {r.examples} cases. Control: {r.control or 'no difference'}."
        fills[f"{r.id}_found"] = html.escape(f"{found}\n{r.failure}".strip())
    rows = (
        [r.id, r.name, r.examples, f"{r.seconds:.2f} s", r.verdict, "found" * bool(r.control)]
        for r in results
    )
    text = (resources.files("minikv") / "data" / "report.html").read_text(encoding="utf-8")
    return Template(text).substitute(
        fills,
        on=html.escape(on),
        conclusion=html.escape(conclusion(results, on)),
        rows=_rows(rows),
        facts=_rows(facts.items()),
        example=html.escape(repr(case)),
    )


def _rows(rows: Iterable[Iterable[Any]]) -> str:
    cells = ("".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows)
    return "\n".join(f"<tr>{row}</tr>" for row in cells)


def _losses(case: Case) -> list[tuple[float, float]]:
    """Each key dropped from each head of layer 0: log10 of T9's bound and of the distance."""
    names = ("blocks.0.attn.hook_pattern", "blocks.0.attn.hook_v")
    pattern, v = (np.asarray(case.activations[name], dtype=np.float64) for name in names)
    heads = v.repeat(len(pattern) // v.shape[1], axis=1).swapaxes(0, 1)  # (H, S, d)
    moved = [
        attention_loss(weights, values, keep)
        for keep in ~np.eye(len(v), dtype=bool)
        for weights, values in zip(pattern[:, -1], heads, strict=True)
    ]
    return [(np.log10(bound), np.log10(loss)) for loss, bound in moved if loss > 0]


def _plot(id: str, points: Sequence[tuple[float, float]]) -> dict[str, str]:
    """Dots of an SVG of 400 by 220, and the whole numbers at the ends of its axes."""
    values = np.array(points or [(0.0, 0.0)])
    low, high = np.floor(values.min(axis=0)), np.floor(values.max(axis=0)) + 1
    at = ((values - low) / (high - low) * (400, -220) + (60, 240)).round(1)
    dots = (f'<circle cx="{across}" cy="{up}" r="4"/>' for across, up in at[: len(points)])
    ends = {"left": low[0], "right": high[0], "bottom": low[1], "top": high[1]}
    return {f"{id}_dots": "".join(dots)} | {f"{id}_{end}": f"{n:g}" for end, n in ends.items()}
