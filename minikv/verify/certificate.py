"""The dataflow certificate: what theorems claim of the flow of data, for all inputs of a shape.

Certified: ``decoder.py``, ``layers.py``, ``projection.py`` and ``caches/full.py`` as they are.
They are run with hooks, which set and read labels, in short calls: what happens only without
hooks, or only in longer calls, is not seen. Taken on trust: that token ids do nothing but choose
rows of the embedding (an ``if`` on an id would not be seen), and that an `Arithmetic`'s methods
depend on their arguments row by row, as `minikv.verify.dataflow.LabelArithmetic` says. That is what
the properties T1, T6 and T7 are for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ..arrays import Array
from ..config import ModelConfig
from ..errors import InputError
from ..layers import Hook, no_hook
from .cases import Refuted
from .dataflow import MOST_TOKENS, Flow, Kind, follow, labelled_model
from .theorem import Theorem
from .theorems import THEOREMS


@dataclass(frozen=True)
class Certificate:
    """What was read off; `failures` is empty where every claim holds."""

    layers: int
    tokens: int
    claims: int
    failures: tuple[str, ...]


def claimed() -> dict[Kind, list[tuple[str, Flow]]]:
    """For each kind of row the claims about it, each with its theorem's id."""
    table: dict[Kind, list[tuple[str, Flow]]] = {kind: [] for kind in Kind}
    for theorem in THEOREMS.values():
        for flow in theorem.flows:
            for kind in flow.kinds:
                table[kind].append((theorem.id, flow))
    return table


def certify(
    config: ModelConfig,
    chunks: tuple[int, ...] = (3, 1, 1),
    smuggle: Callable[[], Hook] = lambda: no_hook,
) -> Certificate:
    """Certify what the theorems claim of the flow of data, for all inputs of a shape.

    A window longer than the text hides nothing; shorten it with `dataclasses.replace` to see it.

    Parameters
    ----------
    config : ModelConfig
    chunks : tuple of int
        Tokens of each call: a prompt, then single tokens on a KV cache.
    smuggle : callable
        Makes a hook that changes the architecture, for each run anew; the certificate must then
        fail where the change carries state past the stream.

    Returns
    -------
    Certificate

    Raises
    ------
    UnknownOperation
        If the decoder does something whose flow of data is not known.
    InputError
        If there are no tokens, or more than fit into a label.

    Examples
    --------
    >>> import minikv
    >>> certify(minikv.tiny_config()).failures
    ()
    """
    tokens = sum(chunks)
    if not 1 <= tokens <= MOST_TOKENS:
        raise InputError(f"chunks add up to {tokens} tokens, expected 1 to {MOST_TOKENS}")
    model = labelled_model(config, tokens)
    table = claimed()
    failures = []
    claims = 0
    for labelled in range(config.num_hidden_layers):
        for row in follow(model, [chunks], labelled, smuggle()):
            for id, flow in table[row.kind]:
                claims += 1
                if not flow.holds(row):
                    failures.append(f"{id}: {row}: {flow.otherwise}")
    return Certificate(config.num_hidden_layers, tokens, claims, tuple(failures))


# --- as a claim among the others ------------------------------------------------------------------


class Shaped(Protocol):
    """A case, or whatever else has a shape."""

    @property
    def config(self) -> ModelConfig:
        """The shape."""


@dataclass
class ValueResidual:
    """A hook that carries the values of block 0 past the stream, into all later blocks."""

    first: list[Array] = field(default_factory=list)

    def __call__(self, name: str, value: Array) -> Array:
        if not name.endswith("attn.hook_v"):
            return value
        self.first.append(value)
        return value + self.first[0]


def check(case: Shaped) -> None:
    """D: no claim of a theorem about the flow of data fails."""
    failures = certify(case.config).failures
    if failures:
        first = {failure.partition(":")[0]: failure for failure in reversed(failures)}
        told = "; ".join(first[id] for id in THEOREMS if id in first)
        raise Refuted(
            f"window {case.config.sliding_window}: {len(failures)} claims fail, first {told}"
        )


def control(case: Shaped) -> str:
    """What the certificate says of a decoder with value residuals."""
    failures = certify(case.config, (1,), ValueResidual).failures
    return failures[0] if failures else ""


CERTIFICATE: Theorem[Shaped] = Theorem(
    id="D",
    name="dataflow certificate",
    text="No label gets past the stream, on all inputs.",
    formula="sources(<i>z</i>), sources(K<sub><i>m</i></sub>, V<sub><i>m</i></sub>) ⊆ labels of "
    "<i>H<sub>l</sub></i>, for all <i>m</i> ≥ <i>l</i>",
    remark="The decoder itself runs on sets of labels instead of numbers. Its control flow reads "
    "no values, so this covers all inputs of a shape, for "
    + ", ".join(theorem.id for theorem in THEOREMS.values() if theorem.flows)
    + ". That each operation is local to its rows is taken on trust here, and checked by T6.",
    check=check,
    control=control,
    dropped="a stream that carries all state (values of block 0 are carried past it)",
    scope="all inputs of the shapes",
)
