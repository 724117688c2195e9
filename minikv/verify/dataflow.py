"""The flow of data: the real decoder, run on arrays of labels instead of numbers.

A `Labels` array holds, for each element, the set of sources that its value may depend on, as the
bits of a word. `Namespace` offers the array functions that the decoder uses; one that it does not
know raises `UnknownOperation`, so that nothing passes unseen. The row of the embedding that a
token takes is labelled; replace the stream at layer l by fresh labels, one a position, run on, and
read off what everything above depends on: a `Row` for each row of an activation. What must hold of
it is a `Flow`, of which each theorem has its own; `minikv.verify.certificate` puts them together.
Since the decoder's control flow does not look at values, this covers all inputs of a shape at once,
and since no values are needed, a 4B shape is as cheap as a small one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from types import MappingProxyType
from typing import Any

import numpy as np

from ..arithmetic import Arithmetic
from ..build import build
from ..config import ModelConfig
from ..decoder import Weights
from ..errors import MinikvError
from ..layers import Hook
from ..model import Model
from ..weights import expected_shapes

MOST_TOKENS = 30  # two labels a token fit beside the two marks
_MASKED = np.uint64(1 << 63)  # a score of -inf, a weight of exactly 0
_UNSET = np.uint64(1 << 62)  # memory that nobody wrote
_NOTHING = np.uint64(0)
_OR = np.bitwise_or


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

    def __getitem__(self, index: Any) -> Labels:
        return Labels(self.bits[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        self.bits[index] = _bits(value)

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

    __name__ = "labels"  # as a module has one
    float32 = float64 = "labels"

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


def label_weights(config: ModelConfig) -> Weights:
    """Weights of a shape, without numbers: they depend on no input."""
    zeros = {  # of a projection only how many rows it has is used: 4B parameters need no memory
        name: np.broadcast_to(np.float32(0), (shape[0], 0) if "_proj.weight" in name else shape)
        for name, shape in expected_shapes(config).items()
    }
    # A view of the dictionary, whose numbers nobody hashes: a 4B shape would take gigabytes.
    return build(config, MappingProxyType(zeros), LabelArithmetic())


# --- what is read off -----------------------------------------------------------------------------

Place = tuple[int, int]  # number of a text in the call, position in the text


class Kind(Enum):
    """What a row is a row of. The labelled layer is the one whose stream has fresh labels."""

    EMBEDDING = auto()
    FIRST_KV = auto()  # keys and values of layer 0, where that is the labelled layer
    OWN_KV = auto()  # keys and values of the labelled layer, if it is another
    LATER_KV = auto()  # keys and values of layers above it
    STREAM_BEFORE = auto()  # hook_resid_pre, of the labelled layer and above
    STREAM_AFTER = auto()  # hook_resid_post
    LOGITS = auto()


AT_OR_ABOVE = tuple(kind for kind in Kind if kind is not Kind.EMBEDDING)


@dataclass(frozen=True)
class Row:
    """What one row of an activation was found to depend on, and what it may see.

    Parameters
    ----------
    kind : Kind
    activation : str
        TransformerLens's name, or ``logits``.
    labelled : int
        The layer whose stream had fresh labels.
    place : (int, int)
        Which text of the call, and which position in it.
    rows : set of (int, int)
        The rows of the labelled stream that it depends on.
    tokens : set of (int, int)
        The tokens whose row of the embedding it depends on, past the labelled stream.
    unset : bool
        Whether it depends on memory that nobody wrote.
    visible : set of (int, int)
        The rows of the labelled stream within its reach, which T11 bounds.
    """

    kind: Kind
    activation: str
    labelled: int
    place: Place
    rows: frozenset[Place]
    tokens: frozenset[Place]
    unset: bool
    visible: frozenset[Place]

    def __str__(self) -> str:
        text, position = self.place
        return (
            f"{self.activation} at position {position} of text {text}, "
            f"fresh labels at layer {self.labelled}"
        )


@dataclass(frozen=True)
class Flow:
    """A claim about every row of some kinds, and what is the matter where it does not hold."""

    kinds: tuple[Kind, ...]
    holds: Callable[[Row], bool]
    otherwise: str


def labelled_model(config: ModelConfig, tokens: int) -> Model:
    """A model without numbers in which each of the first `tokens` ids has a label of its own."""
    config = replace(
        config,
        vocab_size=max(tokens, config.vocab_size),
        max_position_embeddings=max(tokens, config.max_position_embeddings),
    )
    weights = label_weights(config)
    words = np.zeros((config.vocab_size, 1), dtype=np.uint64)
    words[:tokens, 0] = [1 << (tokens + word) for word in range(tokens)]
    embedding = Labels(np.broadcast_to(words, weights.embed_tokens.shape))
    return Model(replace(weights, embed_tokens=embedding))


def follow(
    model: Model, texts: Sequence[Sequence[int]], labelled: int, smuggle: Hook
) -> Iterator[Row]:
    """Run texts call by call, with fresh labels in the stream of one layer; read every row.

    Parameters
    ----------
    model : Model
        By `labelled_model`; no token occurs twice.
    texts : sequence of sequence of int
        For each text the number of tokens of each call, on a KV cache of its own.
    labelled : int
        The layer. Label i marks the i-th of all tokens there, label ``tokens + i`` the row of the
        embedding for it.
    smuggle : callable
        A hook that may change the architecture.
    """
    places = [
        (text, position) for text, calls in enumerate(texts) for position in range(sum(calls))
    ]
    reader = _Reader(model.config, places, labelled)
    caches = [model.new_cache("full") for _ in texts]
    started = [0] * len(texts)

    for call in range(max(len(calls) for calls in texts)):
        running = [text for text, calls in enumerate(texts) if call < len(calls)]
        counts = [texts[text][call] for text in running]
        now = [
            places.index((text, started[text] + row))
            for text, count in zip(running, counts, strict=True)
            for row in range(count)
        ]

        def hook(name: str, value: Any, now: list[int] = now) -> Any:
            value = smuggle(name, value)
            if name == f"blocks.{labelled}.hook_resid_pre":
                marks = np.array([1 << label for label in now], dtype=np.uint64)
                value = Labels(np.broadcast_to(marks[:, None], value.shape).copy())
            reader.note(name, value, now)
            return value

        ids = [[index for index in now if places[index][0] == text] for text in running]
        logits = model.forward(ids, [caches[text] for text in running], "all", hook)
        reader.note("logits", logits, now)
        for text, count in zip(running, counts, strict=True):
            started[text] += count
    yield from reader.found


class _Reader:
    """Turns the labels of activations into rows."""

    def __init__(self, config: ModelConfig, places: Sequence[Place], labelled: int) -> None:
        self._config = config
        self._places = places
        self._labelled = labelled
        self.found: list[Row] = []

    def note(self, name: str, value: Any, labels: Sequence[int]) -> None:
        """Keep the rows of an activation; `labels` says of which tokens they are."""
        kind = self._kind(name)
        if kind is None:
            return
        sources = _OR.reduce(value.bits.reshape(value.shape[0], -1), axis=1)
        for label, bits in zip(labels, sources.tolist(), strict=True):
            place = self._places[label]
            self.found.append(
                Row(
                    kind=kind,
                    activation=name,
                    labelled=self._labelled,
                    place=place,
                    rows=self._named(bits),
                    tokens=self._named(bits >> len(self._places)),
                    unset=bool(bits & int(_UNSET)),
                    visible=self._visible(name, place),
                )
            )

    def _kind(self, name: str) -> Kind | None:
        """What a row of this activation is; None where nothing is claimed of it."""
        if name in ("hook_embed", "logits"):
            return {"hook_embed": Kind.EMBEDDING, "logits": Kind.LOGITS}[name]
        layer = _layer(name)
        if layer is None or layer < self._labelled:
            return None
        if name.endswith("hook_resid_pre"):
            return Kind.STREAM_BEFORE
        if name.endswith("hook_resid_post"):
            return Kind.STREAM_AFTER
        if not name.endswith(("attn.hook_rot_k", "attn.hook_v")):
            return None
        if layer > self._labelled:
            return Kind.LATER_KV
        return Kind.OWN_KV if layer else Kind.FIRST_KV

    def _named(self, bits: int) -> frozenset[Place]:
        return frozenset(place for label, place in enumerate(self._places) if bits >> label & 1)

    def _visible(self, name: str, place: Place) -> frozenset[Place]:
        """The positions up to its own, but those before the reach of the layers between."""
        text, position = place
        layer = _layer(name)
        if layer is None:
            layer = self._config.num_hidden_layers
        elif name.endswith("hook_resid_post"):
            layer += 1
        if layer < self._labelled or name == "hook_embed":
            return frozenset()
        reach = self._config.reach(self._labelled, layer)
        first = 0 if reach is None else max(0, position - reach)
        return frozenset((text, row) for row in range(first, position + 1))


def _layer(name: str) -> int | None:
    return int(name.split(".")[1]) if name.startswith("blocks.") else None
