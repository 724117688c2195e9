"""The dataflow certificate: what theorems claim of the flow of data, for all inputs of a shape.

Certified: what the decoder's own files do (`SOURCES`), as they are, in the calls of `plans`: one
text and two, short and longer, with hooks and without. What it cannot see, and takes on trust, is
in `TRUST`. That is what the properties T1, T6 and T7 are for.
"""

from __future__ import annotations

import dataclasses
import dis
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import CodeType, ModuleType
from typing import Protocol

from .. import decoder, layers, projection, rotary
from ..arithmetic import base, sight
from ..arrays import Array
from ..caches import full
from ..config import ModelConfig
from ..errors import InputError
from ..layers import Hook, no_hook
from .bits import Refuted
from .dataflow import (
    MOST_TOKENS,
    Flow,
    Kind,
    Row,
    UnknownOperation,
    follow,
    follow_blocks,
    follow_tokens,
    labelled_model,
    refusals,
)
from .functions import codes_in, functions_of
from .theorem import Theorem
from .theorems import THEOREMS

SOURCES = (decoder, layers, projection, rotary, base, sight, full)
TRUST = "on trust: sums and kernels are local to their rows; no `if` asks what a token id is"
_ASKING = {"isinstance", "issubclass", "type", "vars", "dir", "repr", "str", "hash"}
_GENERATED = {"__eq__", "__repr__", "__hash__", "__setattr__", "__delattr__", "__replace__"}
_NAMES = {"name", "__name__", "__class__", "__module__"}

Texts = Sequence[Sequence[int]]
"""For each text of a plan the number of tokens of each call."""


@dataclass(frozen=True)
class Certificate:
    """What was read off; `failures` is empty where every claim holds."""

    layers: int
    tokens: int
    claims: int
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Texts to run at a shape, and at which layers their stream is labelled."""

    config: ModelConfig
    texts: Texts
    labelled: tuple[int, ...]
    hooks: bool = True

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return sum(map(sum, self.texts))


def plans(config: ModelConfig) -> list[Plan]:
    """One text at every layer; two texts, and a longer one without hooks, at three layers.

    Where layers slide, with a window of two tokens: a longer one may hide nothing, and is tried at
    three layers.
    """
    every = tuple(range(config.num_hidden_layers))
    some = tuple(sorted({every[0], every[len(every) // 2], every[-1]}))
    twice = tuple(sorted((*some, *some)))
    found = []
    if config.slides:
        found.append(Plan(config, ((3, 1),), some))
        found.append(Plan(config, ((9, 2, 1),), some, hooks=False))
        config = replace(config, sliding_window=2)
    found.append(Plan(config, ((3, 1),), every))
    found.append(Plan(config, ((3, 1, 1), (1, 2)), some))
    found.append(Plan(config, ((9, 2, 1),), some, hooks=False))
    found.append(Plan(config, ((2,),), twice))  # the same call again
    return found


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
    texts: Texts | None = None,
    smuggle: Callable[[], Hook] = lambda: no_hook,
) -> Certificate:
    """Certify what the theorems claim of the flow of data, for all inputs of a shape.

    Parameters
    ----------
    config : ModelConfig
    texts : sequence of sequence of int, optional
        For each text the number of tokens of each call: a prompt, then single tokens on a KV
        cache. The stream is then labelled at every layer. By default all `plans`.
    smuggle : callable
        Makes a hook that changes the architecture, for each run anew; the certificate must then
        fail where the change carries state past the stream.

    Returns
    -------
    Certificate

    Raises
    ------
    UnknownOperation
        If the decoder does something whose flow of data is not known, even if it catches that.
    InputError
        If there are no tokens, or more than fit into a label.

    Examples
    --------
    >>> import minikv
    >>> certify(minikv.tiny_config()).failures
    ()
    """
    todo = plans(config)
    if texts is not None:
        todo = [Plan(config, texts, tuple(range(config.num_hidden_layers)))]
    table = claimed()
    failures = [] if texts is not None else list(asked())
    claims = 0
    refusals()
    for plan in todo:
        for row in rows(plan, smuggle):
            for id, flow in table[row.kind]:
                claims += 1
                if not flow.holds(row):
                    failures.append(f"{id}: {row}: {flow.otherwise}")
    swallowed = refusals()
    if swallowed:
        raise UnknownOperation(swallowed[0])
    tokens = max(plan.tokens for plan in todo)
    return Certificate(config.num_hidden_layers, tokens, claims, tuple(failures))


def rows(plan: Plan, smuggle: Callable[[], Hook]) -> Iterator[Row]:
    """Everything that is read off in a plan."""
    if not 1 <= plan.tokens <= MOST_TOKENS:
        raise InputError(f"the texts have {plan.tokens} tokens, expected 1 to {MOST_TOKENS}")
    model = labelled_model(plan.config, plan.tokens)
    for labelled in plan.labelled:
        if plan.hooks:
            yield from follow(model, plan.texts, labelled, smuggle())
        else:
            yield from follow_blocks(model, plan.texts, labelled)
    if not plan.hooks:
        yield from follow_tokens(model, plan.texts)


def asked(sources: Sequence[ModuleType] = SOURCES) -> Iterator[str]:
    """Where the decoder's functions ask what computes: there labels might go another way.

    Classes and names of things, and whether something *is* a module. What is asked of a value is
    refused while labels run.
    """
    for module in sources:
        modules = {name for name, value in vars(module).items() if isinstance(value, ModuleType)}
        for function in functions_of(module):
            if function.__name__ in _GENERATED or function.__module__ == dataclasses.__name__:
                continue
            for code in (function.__code__, *codes_in(function.__code__)):
                for found in _asks(code, modules):
                    yield f"D: {module.__name__}.{code.co_qualname} asks what computes: {found}"


def _asks(code: CodeType, modules: set[str]) -> Iterator[str]:
    """What a piece of code asks of what computes."""
    before = ""
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_GLOBAL" and step.argval in _ASKING:
            yield step.argval
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD") and step.argval in _NAMES:
            yield f".{step.argval}"
        elif step.opname == "IS_OP" and before in modules:
            yield f"is {before}"
        before = step.argval if step.opname == "LOAD_GLOBAL" else ""


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
        told = "; ".join(first[id] for id in ("D", *THEOREMS) if id in first)
        raise Refuted(f"{len(failures)} claims fail, first {told}")


def control(case: Shaped) -> str:
    """What the certificate says of a decoder with value residuals."""
    failures = certify(case.config, [(1,)], ValueResidual).failures
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
    + ". It runs texts of up to twelve tokens, one and two at a time, with hooks and without. "
    "That each operation is local to its rows is taken on trust here, and checked by T6.",
    check=check,
    control=control,
    dropped="a stream that carries all state (values of block 0 are carried past it)",
    scope=f"all inputs of the shapes; {TRUST}",
)
