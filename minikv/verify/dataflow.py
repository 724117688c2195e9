"""The flow of data: the real decoder, run on arrays of labels instead of numbers.

A `Labels` array holds, for each element, the set of sources that its value may depend on, as the
bits of a word. `Namespace` offers the array functions that the decoder uses; one that it does not
know raises `UnknownOperation`, so that nothing passes unseen. The row of the embedding that a
token takes is labelled; replace the stream at layer l by fresh labels, one a position, run on, and
read off what everything above depends on: a `Row` for each row of an activation. What must hold of
it is a `Flow`, of which each theorem has its own; `minikv.verify.certificate` puts them together.
Since the decoder's control flow does not look at values, this covers all inputs of a shape at once,
and since no values are needed, it takes no weights: a 4B shape is certified too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np

from ..arithmetic import Arithmetic
from ..arrays import Array
from ..build import build
from ..config import ModelConfig
from ..decoder import Weights, block, embed, stack, unembed
from ..errors import MinikvError
from ..layers import Hook
from ..model import Model
from ..projection import kv_from_residual
from ..weights import expected_shapes

MOST_TOKENS = 29  # two labels a token fit beside the marks
_MASKED = np.uint64(1 << 63)  # a score of -inf, a weight of exactly 0
_UNSET = np.uint64(1 << 62)  # memory that nobody wrote
_RUNS = (1 << 60, 1 << 61)  # of one run and of the next, so that what is left of one shows
_NOTHING = np.uint64(0)
_OR = np.bitwise_or

Index = Any  # what an array is indexed by

_refused: list[str] = []


class UnknownOperation(MinikvError):
    """The decoder used an operation whose flow of data is not known here."""


def refuse(what: str) -> UnknownOperation:
    """The error to raise; it is remembered, should somebody catch it."""
    _refused.append(what)
    return UnknownOperation(what)


def refusals() -> list[str]:
    """What was refused since the last call."""
    found = list(_refused)
    _refused.clear()
    return found


class Opaque:
    """A dtype or a name: handed on, but never compared, printed or looked into."""

    __isabstractmethod__ = False  # asked where a class is made

    def _asked(self, *other: object) -> NoReturn:
        raise refuse("control flow depends on a dtype or a name")

    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _asked
    __hash__ = __str__ = __repr__ = __format__ = __contains__ = _asked

    def __getattr__(self, name: str) -> NoReturn:
        raise refuse(f"control flow depends on a dtype's or a name's {name!r}")


class Labels:
    """An array without values: a set of sources for each element, 64 bits wide."""

    __array_ufunc__ = None  # NumPy must not take it apart
    dtype = Opaque()

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

    def __getitem__(self, index: Index) -> Labels:
        return Labels(self.bits[index])

    def __setitem__(self, index: Index, value: object) -> None:
        self._writable()[index] = _bits(value)

    def __neg__(self) -> Labels:
        return Labels(self.bits.copy())

    def _joined(self, other: object) -> Labels:
        return Labels(_OR(self.bits, _bits(other)))

    def _joined_in_place(self, other: object) -> Labels:
        """What every view of this memory then sees."""
        bits = self._writable()
        bits |= _bits(other)
        return self

    def _writable(self) -> np.ndarray:
        if not self.bits.flags.writeable:
            raise refuse("an array that is the model's own is written to")
        return self.bits

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _joined
    __truediv__ = __rtruediv__ = _joined
    __iadd__ = __isub__ = __imul__ = __itruediv__ = _joined_in_place

    def _asked(self, *other: object) -> NoReturn:
        raise refuse("control flow depends on a value")

    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _asked
    __float__ = __int__ = __complex__ = __index__ = __round__ = __array__ = _asked
    __hash__ = __str__ = __repr__ = __format__ = __reduce_ex__ = __sizeof__ = _asked

    @property  # type: ignore[misc]  # it is what isinstance asks
    def __class__(self) -> type[Labels]:
        raise refuse("control flow depends on the class of an array")

    def __getattr__(self, name: str) -> NoReturn:
        raise refuse(f"the array attribute {name!r} is not known to the certificate")


def _bits(value: object) -> np.ndarray:
    if type(value) is Labels:
        return value.bits
    if isinstance(value, (int, float, np.ndarray, np.generic)):
        return np.broadcast_to(_NOTHING, np.shape(value))
    raise refuse(f"{type(value).__name__} is not known to the certificate")


class Namespace:
    """The part of the array API that the decoder uses, on `Labels`."""

    __name__ = "labels"  # as a module has one
    float32 = Opaque()
    float64 = Opaque()

    def __getattr__(self, name: str) -> NoReturn:
        raise refuse(f"the operation {name!r} is not known to the certificate")

    def asarray(self, value: object, dtype: object = None) -> Labels | np.ndarray:
        if type(value) is Labels:
            return value
        if isinstance(value, np.ndarray) and value.dtype.kind in "biu":
            return value  # positions, indices and masks: known numbers, the same for all inputs
        if isinstance(value, float) and value == float("-inf"):
            return Labels(np.asarray(_MASKED))
        bits = _bits(value)
        return Labels(bits.copy() if bits.ndim < 2 else bits)  # an embedding is too large to copy

    def empty(self, shape: tuple[int, ...], dtype: object = None) -> Labels:
        return Labels(np.full(shape, _UNSET))

    def astype(self, x: Labels, dtype: object, copy: bool = True) -> Labels:
        return Labels(x.bits.copy()) if copy else x

    def take(self, x: Labels, indices: np.ndarray, axis: int = 0) -> Labels:
        return Labels(x.bits[(slice(None),) * axis + (indices,)])  # np.take would copy all of x

    def reshape(self, x: Labels, shape: tuple[int, ...]) -> Labels:
        return Labels(x.bits.reshape(shape))

    def permute_dims(self, x: Labels, axes: tuple[int, ...]) -> Labels:
        return Labels(x.bits.transpose(axes))

    def concat(self, arrays: Iterable[object], axis: int = 0) -> Labels:
        return Labels(np.concatenate([_bits(array) for array in arrays], axis=axis))

    def where(self, condition: np.ndarray, x: object, y: object) -> Labels:
        return Labels(np.where(condition, _bits(x), _bits(y)))

    def sqrt(self, x: Labels) -> Labels:
        return Labels(x.bits.copy())


class LabelArithmetic(Arithmetic):
    """What each sum depends on: a product row on its row, attention on what it weighs."""

    query_block = 2  # short texts take several
    # An instance may differ from the class here: nothing may ask for a name.
    name = Opaque()  # type: ignore[assignment]
    dtype = Opaque()
    wide = Opaque()

    def __init__(self) -> None:
        self.xp = Namespace()  # type: ignore[assignment]  # the part of one that is used

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
        return Labels(row.repeat(weight.shape[0], axis=-1))

    def mean_square(self, x: Labels) -> Labels:
        return Labels(_OR.reduce(x.bits, axis=-1, keepdims=True))

    def settle(self, x: Labels) -> Labels:
        row = _OR.reduce(x.bits, axis=-1, keepdims=True)
        return Labels(row.repeat(x.shape[-1], axis=-1))

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
        return Labels(heads.T[:, :, None].repeat(v.shape[2], axis=-1))

    def exp(self, x: Labels) -> Labels:
        return Labels(x.bits.copy())

    def sin(self, x: Labels) -> Labels:
        return Labels(x.bits.copy())

    def cos(self, x: Labels) -> Labels:
        return Labels(x.bits.copy())


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


ALL_KINDS = tuple(Kind)
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
    strays : set of str
        What it depends on that nothing may depend on.
    visible : set of (int, int)
        The rows of the labelled stream within its reach, which T11 bounds.
    """

    kind: Kind
    activation: str
    labelled: int
    place: Place
    rows: frozenset[Place]
    tokens: frozenset[Place]
    strays: frozenset[str]
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


def follow(model: Model, texts: Sequence[Sequence[int]], labelled: int, smuggle: Hook) -> list[Row]:
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
    reader = _Reader(model.config, texts, labelled)
    caches = [model.new_cache("full") for _ in texts]
    for call in calls(texts):
        ids, running, now = reader.ids(call)

        def hook(name: str, value: Any, now: list[int] = now) -> Any:
            value = smuggle(name, value)
            if name == f"blocks.{labelled}.hook_resid_pre":
                value = reader.marks(now, value.shape)
            elif name == "hook_embed":
                value = reader.of_this_run(value)
            reader.note(name, value, now)
            return value

        logits = model.forward(ids, [caches[text] for text in running], "all", hook)
        reader.note("logits", logits, now)
    return reader.found


def follow_blocks(model: Model, texts: Sequence[Sequence[int]], labelled: int) -> list[Row]:
    """The same without hooks: block by block, the stream of one layer replaced between two."""
    reader = _Reader(model.config, texts, labelled)
    caches = [model.new_cache("full") for _ in texts]
    for call in calls(texts):
        ids, running, now = reader.ids(call)
        stacked, spans = stack(model.weights, ids, [caches[text] for text in running])
        positions = np.concatenate([span.positions for span in spans])
        stream = reader.of_this_run(embed(model.weights, stacked))
        for layer in model.layers:
            if layer.index == labelled:
                stream = reader.marks(now, stream.shape)
            k, v = kv_from_residual(stream, positions, layer)
            reader.note(f"blocks.{layer.index}.attn.hook_rot_k", k, now)
            reader.note(f"blocks.{layer.index}.attn.hook_v", v, now)
            stream = block(layer, stream, positions, spans)
            reader.note(f"blocks.{layer.index}.hook_resid_post", stream, now)
        reader.note("logits", unembed(model.weights, stream), now)
        for span, text in zip(spans, running, strict=True):
            caches[text].advance(span.new)
    return reader.found


def follow_tokens(model: Model, texts: Sequence[Sequence[int]]) -> list[Row]:
    """Logits of calls without hooks: the rows of the embedding stand for the stream at layer 0."""
    reader = _Reader(model.config, texts, 0)
    caches = [model.new_cache("full") for _ in texts]
    for call in calls(texts):
        ids, running, now = reader.ids(call)
        logits = model.forward(ids, [caches[text] for text in running], "all")
        reader.note("logits", logits, now)
    return [replace(row, rows=row.tokens, tokens=frozenset()) for row in reader.found]


def calls(texts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """For each call how many new tokens each text has; 0 where it has ended."""
    for call in range(max(len(counts) for counts in texts)):
        yield [counts[call] if call < len(counts) else 0 for counts in texts]


class _Reader:
    """Gives labels to tokens, and turns the labels of activations into rows."""

    _runs = 0

    def __init__(self, config: ModelConfig, texts: Sequence[Sequence[int]], labelled: int) -> None:
        self._config = config
        self._labelled = labelled
        self._places = [
            (text, position) for text, counts in enumerate(texts) for position in range(sum(counts))
        ]
        self._started = [0] * len(texts)
        _Reader._runs += 1
        self._own, self._other = _RUNS if _Reader._runs % 2 else _RUNS[::-1]
        self.found: list[Row] = []

    def ids(self, counts: Sequence[int]) -> tuple[list[list[int]], list[int], list[int]]:
        """Token ids of a call by text, which texts these are, and all labels, row by row."""
        running = [text for text, count in enumerate(counts) if count]
        ids = []
        for text in running:
            first = self._places.index((text, self._started[text]))
            ids.append(list(range(first, first + counts[text])))
            self._started[text] += counts[text]
        return ids, running, [label for text in ids for label in text]

    def marks(self, labels: Sequence[int], shape: tuple[int, ...]) -> Labels:
        """A stream with fresh labels, one a row."""
        fresh = np.array([1 << label | self._own for label in labels], dtype=np.uint64)
        return Labels(np.broadcast_to(fresh[:, None], shape).copy())

    def of_this_run(self, embedding: Labels) -> Labels:
        """An embedding that knows which run it is of."""
        return Labels(embedding.bits | np.uint64(self._own))

    def note(self, name: str, value: Array, labels: Sequence[int]) -> None:
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
                    strays=self._strays(bits),
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

    def _strays(self, bits: int) -> frozenset[str]:
        found = set()
        if bits & int(_UNSET):
            found.add("memory that nobody wrote")
        if bits & self._other:
            found.add("an earlier run")
        return frozenset(found)

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
