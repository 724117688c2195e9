"""The dataflow certificate: the real decoder, run on arrays of labels instead of numbers.

A `Labels` array holds, for each element, the set of sources that its value may depend on, as the
bits of a word. `Namespace` offers the array functions that the decoder uses; one that it does not
know raises `UnknownOperation`, so that nothing passes unseen. The row of the embedding that a
token takes is labelled; replace the stream at layer l by fresh labels, one a position, run on, and
read off what everything above depends on. Since the decoder's control flow does not look at values,
this covers all inputs of a shape at once, and since no values are needed, a 4B shape is as cheap as
a small one.

Certified: ``decoder.py``, ``layers.py``, ``projection.py`` and ``caches/full.py`` as they are.
They are run with hooks, which set and read labels, in short calls: what happens only without
hooks, or only in longer calls, is not seen. Taken on trust: that token ids do nothing but choose
rows of the embedding (an ``if`` on an id would not be seen), and that an `Arithmetic`'s methods
depend on their arguments row by row, as `LabelArithmetic` says here. That is what the properties
T1, T6 and T7 are for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from ..arithmetic import Arithmetic
from ..build import build
from ..config import ModelConfig
from ..decoder import Weights
from ..errors import MinikvError
from ..layers import Hook, no_hook
from ..model import Model
from ..weights import expected_shapes

_MASKED = np.uint64(1 << 63)  # a score of -inf, a weight of exactly 0
_UNSET = np.uint64(1 << 62)  # memory that nobody wrote
_NOTHING = np.uint64(0)
_OR = np.bitwise_or
MOST_TOKENS = 30  # two labels a token fit beside the two marks


class UnknownOperation(MinikvError):
    """The decoder used an operation whose flow of data is not known here."""


class Labels:
    """An array without values: a set of sources for each element, 64 bits wide."""

    __array_ufunc__ = None  # NumPy must not take it apart
    __hash__ = None  # type: ignore[assignment]  # like an array
    dtype = "labels"

    def __init__(self, bits: np.ndarray) -> None:
        self.bits = bits

    @property
    def shape(self) -> tuple[int, ...]:
        return self.bits.shape

    @property
    def ndim(self) -> int:
        return self.bits.ndim

    def __len__(self) -> int:
        return len(self.bits)

    def __getitem__(self, at: Any) -> Labels:
        return Labels(self.bits[at])

    def __setitem__(self, at: Any, value: Any) -> None:
        self.bits[at] = _bits(value)

    def __neg__(self) -> Labels:
        return self

    def _joined(self, other: Any) -> Labels:
        return Labels(_OR(self.bits, _bits(other)))

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _joined
    __truediv__ = __rtruediv__ = _joined

    def _asked(self, *other: Any) -> Any:
        raise UnknownOperation("control flow depends on a value")

    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _asked

    def __getattr__(self, name: str) -> Any:
        raise UnknownOperation(f"the array attribute {name!r} is not known to the certificate")


def _bits(value: Any) -> np.ndarray:
    if isinstance(value, Labels):
        return value.bits
    if isinstance(value, (int, float, np.ndarray, np.generic)):
        return np.broadcast_to(_NOTHING, np.shape(value))
    raise UnknownOperation(f"{type(value).__name__} is not known to the certificate")


class Namespace:
    """The part of the array API that the decoder uses, on `Labels`."""

    __name__ = float32 = float64 = "labels"  # as a module has one

    def __getattr__(self, name: str) -> Any:
        raise UnknownOperation(f"the operation {name!r} is not known to the certificate")

    def asarray(self, value: Any, dtype: Any = None) -> Any:
        if isinstance(value, np.ndarray) and value.dtype.kind in "biu":
            return value  # positions, indices and masks: known numbers, the same for all inputs
        if isinstance(value, float) and value == float("-inf"):
            return Labels(np.asarray(_MASKED))
        return value if isinstance(value, Labels) else Labels(_bits(value))

    def empty(self, shape: Any, dtype: Any = None) -> Labels:
        return Labels(np.full(shape, _UNSET))

    def astype(self, x: Labels, dtype: Any, copy: bool = True) -> Labels:
        return Labels(x.bits.copy()) if copy else x

    def take(self, x: Labels, indices: np.ndarray, axis: int = 0) -> Labels:
        return Labels(x.bits[(slice(None),) * axis + (indices,)])  # np.take would copy all of x

    def reshape(self, x: Labels, shape: tuple[int, ...]) -> Labels:
        return Labels(x.bits.reshape(shape))

    def permute_dims(self, x: Labels, axes: tuple[int, ...]) -> Labels:
        return Labels(x.bits.transpose(axes))

    def concat(self, arrays: Any, axis: int = 0) -> Labels:
        return Labels(np.concatenate([_bits(array) for array in arrays], axis=axis))

    def where(self, condition: np.ndarray, x: Any, y: Any) -> Labels:
        return Labels(np.where(condition, _bits(x), _bits(y)))

    def sqrt(self, x: Labels) -> Labels:
        return x


class LabelArithmetic(Arithmetic):
    """What each sum depends on: a product row on its row, attention on what it weighs."""

    name = "labels"
    dtype = "labels"
    wide = "labels"

    def __init__(self) -> None:
        self.xp: Any = Namespace()

    def widen(self, x: Labels) -> Labels:
        return Labels(x.bits.copy())

    def narrow(self, x: Labels) -> Labels:
        return Labels(x.bits.copy())

    def values(self, v: Labels) -> Labels:
        return Labels(v.bits.copy())

    def weight(self, matrix: np.ndarray, name: str, tied: bool = False) -> np.ndarray:
        return matrix[:, :0]  # only how many rows it has

    def linear(self, x: Labels, weight: np.ndarray) -> Labels:
        row = _OR.reduce(x.bits, axis=-1, keepdims=True)
        return Labels(np.broadcast_to(row, (*x.shape[:-1], weight.shape[0])))

    def mean_square(self, x: Labels) -> Labels:
        return Labels(_OR.reduce(x.bits, axis=-1, keepdims=True))

    def settle(self, x: Labels) -> Labels:
        return Labels(np.broadcast_to(_OR.reduce(x.bits, axis=-1, keepdims=True), x.shape))

    def scores(self, q: Labels, k: Labels, scale: float) -> Labels:
        queries = _OR.reduce(q.bits, axis=-1).T  # (H, T)
        keys = _OR.reduce(k.bits, axis=-1).T.repeat(q.shape[1] // k.shape[1], axis=0)  # (H, S)
        return Labels(queries[:, :, None] | keys[:, None, :])

    def softmax(self, scores: Labels) -> Labels:
        masked = (scores.bits & _MASKED) != 0
        row = _OR.reduce(np.where(masked, _NOTHING, scores.bits), axis=-1, keepdims=True)
        return Labels(np.where(masked, _MASKED, row))

    def weighted_sum(self, pattern: Labels, v: Labels) -> Labels:
        values = _OR.reduce(v.bits, axis=-1).T.repeat(pattern.shape[0] // v.shape[1], axis=0)
        masked = (pattern.bits & _MASKED) != 0
        heads = _OR.reduce(np.where(masked, _NOTHING, pattern.bits | values[:, None, :]), axis=-1)
        return Labels(np.broadcast_to(heads.T[:, :, None], (*heads.T.shape, v.shape[2])))

    def exp(self, x: Labels) -> Labels:
        return x

    def sin(self, x: Labels) -> Labels:
        return x

    def cos(self, x: Labels) -> Labels:
        return x


@dataclass(frozen=True)
class Certificate:
    """What was read off; `failures` is empty where every claim holds."""

    layers: int
    tokens: int
    claims: int
    failures: tuple[str, ...]


def label_weights(config: ModelConfig) -> Weights:
    """Weights of a shape, without numbers: they depend on no input."""
    zeros = {  # of a projection only how many rows it has is used: 4B parameters need no memory
        name: np.broadcast_to(np.float32(0), (shape[0], 0) if "_proj.weight" in name else shape)
        for name, shape in expected_shapes(config).items()
    }
    # a view of the dictionary, whose numbers nobody hashes: a 4B shape would take gigabytes
    return build(config, MappingProxyType(zeros), LabelArithmetic())


def certify(
    config: ModelConfig,
    chunks: tuple[int, ...] = (3, 1, 1),
    smuggle: Callable[[], Hook] = lambda: no_hook,
) -> Certificate:
    """Certify T1, T2, T5, T8, T10 and T11 for all inputs of a shape.

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

    Examples
    --------
    >>> import minikv
    >>> certify(minikv.tiny_config()).failures
    ()
    """
    tokens = sum(chunks)
    if not 1 <= tokens <= MOST_TOKENS:
        raise MinikvError(f"chunks add up to {tokens} tokens, expected 1 to {MOST_TOKENS}")
    config = replace(config, vocab_size=max(tokens, config.vocab_size))  # a word for each
    weights, words = label_weights(config), np.zeros((config.vocab_size, 1), dtype=np.uint64)
    words[:tokens, 0] = [1 << (tokens + word) for word in range(tokens)]
    embedding = Labels(np.broadcast_to(words, weights.embed_tokens.shape))
    model = Model(replace(weights, embed_tokens=embedding))
    failures: list[str] = []
    claims = 0

    def claim(holds: bool, what: str) -> None:
        nonlocal claims
        claims += 1
        if not holds:
            failures.append(what)

    for at in range(config.num_hidden_layers):
        seen = _run(model, chunks, at, smuggle())
        for name, rows in seen.items():
            layer = int(name.split(".")[1]) if name.startswith("blocks.") else -1
            if name.startswith("blocks.") and layer < at:
                continue
            for t, sources in enumerate(rows):
                if name == "hook_embed":
                    claim(sources == 1 << (tokens + t), f"T10: the embedding of position {t}")
                    continue
                above = layer if name.endswith(("rot_k", "hook_v", "resid_pre")) else layer + 1
                back = config.reach(at, config.num_hidden_layers if name == "logits" else above)
                own, upto = 1 << t, (2 << t) - 1
                seen_from = upto if back is None else upto & -(1 << max(0, t - back))
                where = f"{name} at position {t}, fresh labels at layer {at}"
                if layer == at and name.endswith(("hook_rot_k", "hook_v")):
                    claim(sources == own, f"T1: {where}")
                    if at == 0:
                        claim(sources == own, f"T10: {where}")
                claim(sources >> tokens == 0, f"T2: {where} depends on the stream below")
                claim(sources & upto == sources % (1 << tokens), f"T8: {where} sees the future")
                if name.endswith("hook_resid_post") or name == "logits":
                    claim(sources & ~seen_from == 0, f"T11: {where} sees too far back")
                    claim(sources == seen_from, f"T5: {where} is not the replay of what it sees")
                elif layer > at and name.endswith(("hook_rot_k", "hook_v")):
                    claim(sources == seen_from, f"T10: {where} is not the whole visible prefix's")
    return Certificate(config.num_hidden_layers, tokens, claims, tuple(failures))


def _run(model: Model, chunks: tuple[int, ...], at: int, smuggle: Hook) -> dict[str, list[int]]:
    """One text, call by call; the labels of each position of each activation.

    Label t marks position t of the stream at layer `at`, label ``tokens + t`` the row of the
    embedding for its token; no token occurs twice.
    """
    cache = model.new_cache("full")
    seen: dict[str, list[int]] = {}
    start = 0

    def hook(name: str, value: Any) -> Any:
        value = smuggle(name, value)
        if name == f"blocks.{at}.hook_resid_pre":
            marks = np.array([1 << (start + row) for row in range(len(value))], dtype=np.uint64)
            value = Labels(np.broadcast_to(marks[:, None], value.shape).copy())
        if name.endswith(("hook_embed", "resid_pre", "resid_post", "rot_k", "hook_v")):
            record(name, value)
        return value

    def record(name: str, value: Labels) -> None:
        rows = _OR.reduce(value.bits.reshape(value.shape[0], -1), axis=1)
        seen.setdefault(name, []).extend(int(bits) for bits in rows)

    for count in chunks:
        ids = range(start, start + count)
        record("logits", model.forward([ids], [cache], "all", hook))  # type: ignore[arg-type]  # logits are Labels
        start += count
    return seen
