r"""How far logits are off at most, as a run with a rounded cache can know it without the exact run.

Only the last block's keys and values are rounded; all below is exact. Of the Llama family. Each
bound begins with what the lossy run holds at its newest token, and follows the move from the
heads to the logits, in norms or in intervals (number by number). Both are about real numbers:
how float32 rounds is not in them. The exact run's values are written without a prime.

*Attention.* The queries are exact. Rows of K' are off by at most $\kappa$ in each number, so that
each score moves by at most $\delta = \mathrm{scale} \lVert q \rVert_1 \kappa$, and the weights of
all keys together by $2 \tanh(\delta / 2)$ (A2). A head is $\sum p v$, and
$\sum p v - \sum p' v' = \sum (p - p')(v' - c) + \sum p (v - v')$ for any $c$, since weights add up
to 1: it moves by at most $2 \tanh(\delta / 2) \max|v' - c| + \eta$, where rows of V' are off by at
most $\eta$. Here $c$ is the middle of the stored values.

*RMSNorm.* With $\sqrt{D \epsilon}$ as one more number of a row it is division by the length,
then weights, which are multiplied into the matrix that reads it. If $h'$ is off by at most $e$,
$h/|h|$ is off by at most $2e / (|h| + |h'|) \le e / (|h'| - e/2)$ (Dunkl and Williams), and by at
most 2. Number by number: $r_i / (|h'| - e) + |h'_i| e / (|h'| (|h'| - e))$, and at most
$1 + |h'_i| / |h'|$.

*MLP.* SiLU's slope is between -0.1 and 1.1. With moves $a$ of gate and $b$ of up, their product
moves by at most $1.1 a |u'| + |\mathrm{silu}(g')| b + 1.1 a b$.

*Logits.* The lead of token $i$ over $j$ is a product with $w_i - w_j$.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..arrays import Array, to_numpy
from ..errors import InputError
from ..families import FAMILIES
from ..model import Model
from .quantising import FULL_BITS, rounded, stored
from .systems.kv_tuner import ByLayer

SLOPE = 1.1  # of SiLU, at most 1.0998
STORING = 2.0**-22  # of a row's largest number: two roundings to 24 bits, and float64's
SPECTRAL = 2.0**-30  # of a norm, for float64: five products of matrices of some hundred rows
ROUNDING = 2.0**-40  # of a bound, for float64
BLOCK = 4096  # rows of the output matrix at a time


Sizes = np.ndarray | float
"""Of numbers, or a norm."""


def last_block(model: Model, bits: int) -> ByLayer:
    """An empty cache that rounds the last block's keys and values, and no others."""
    whole = (FULL_BITS, FULL_BITS)
    pairs = [whole] * (len(model.layers) - 1) + [(bits, bits)]
    return ByLayer(model.new_cache("full"), pairs)


def longest(matrix: np.ndarray) -> float:
    """At least the spectral norm, at most ``n**(1/32)`` of it where n is the shorter side.

    The largest singular value is at most the 32nd root of the sum of all of their 32nd powers.
    """
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    squares = short @ short.T
    size = float(np.trace(squares)) or 1.0  # the sum of all squares of singular values
    powers = float(np.trace(np.linalg.matrix_power(squares / size, 16)))
    return math.sqrt(size) * powers ** (1 / 32) * (1 + SPECTRAL)


@dataclass(frozen=True, eq=False, repr=False)
class Behind:
    """The weights behind the last block's heads, float64; norms are multiplied into what reads."""

    out: np.ndarray  # (D, H*d)
    gate: np.ndarray  # (F, D)
    up: np.ndarray  # (F, D)
    down: np.ndarray  # (D, F)
    head: np.ndarray  # (V, D)
    epsilon: float  # D times RMSNorm's

    @classmethod
    def of(cls, model: Model) -> Behind:
        """Those of a model; `InputError` where its blocks are of another kind."""
        config = model.config
        if config.family != FAMILIES["llama"]:
            raise InputError(f"model_type is {config.model_type!r}; these bounds are for 'llama'")
        layer = model.layers[-1]
        root = math.sqrt(config.hidden_size)
        wide = [
            np.asarray(matrix, np.float64)
            for matrix in (layer.o_proj, layer.gate_proj, layer.up_proj, layer.down_proj)
        ]
        before_mlp = np.asarray(layer.pre_mlp_layernorm, np.float64) * root
        before_head = np.asarray(model.weights.norm, np.float64) * root
        return cls(
            out=wide[0],
            gate=wide[1] * before_mlp,
            up=wide[2] * before_mlp,
            down=wide[3],
            head=np.asarray(model.weights.lm_head) * before_head,
            epsilon=config.hidden_size * config.rms_norm_eps,
        )

    @cached_property
    def norms(self) -> tuple[float, float, float, float]:
        """`longest` of out, gate, up and down."""
        return longest(self.out), longest(self.gate), longest(self.up), longest(self.down)

    def apart(self, top: int, measure: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """A measure of the rows of the head, less that of one token, ``(V,)``."""
        starts = range(0, len(self.head), BLOCK)
        blocks = [self.head[start : start + BLOCK] - self.head[top] for start in starts]
        return np.concatenate([measure(block) for block in blocks])


@dataclass(frozen=True, eq=False, repr=False)
class Token:
    """What the lossy run holds at its newest token, float64."""

    q: np.ndarray  # (H, d), times attention's scale
    key_error: np.ndarray  # (G,): how far a stored number is off at most
    values: np.ndarray  # (S, G, d), as they are stored
    value_error: np.ndarray  # (G,)
    mid: np.ndarray  # (D,): the stream between attention and MLP
    gate: np.ndarray  # (F,)
    up: np.ndarray  # (F,)
    post: np.ndarray  # (D,): the stream behind the block
    logits: np.ndarray  # (V,)

    def heads(self) -> Iterator[tuple[float, np.ndarray, float]]:
        """Of each head: how far its weights move in all, its values, how far these are off."""
        share = len(self.q) // self.values.shape[1]
        for head, asked in enumerate(self.q):
            group = head // share
            delta = float(np.abs(asked).sum() * self.key_error[group])
            yield 2 * math.tanh(delta / 2), self.values[:, group], float(self.value_error[group])

    @cached_property
    def silu(self) -> np.ndarray:
        """The sizes of the activations, ``(F,)``."""
        return np.abs(self.gate) / (1 + np.exp(-self.gate))


def knowing_nothing(token: Token) -> Token:
    """The same with values that may be anything: a bound is then what directions differ by."""
    return replace(token, value_error=np.full_like(token.value_error, 1e100))


def off_at_most(back: np.ndarray, step: np.ndarray) -> np.ndarray:
    """How far stored rows ``(S, G, d)`` are off in any number, ``(G,)``, by their steps."""
    return (step[..., 0] / 2 + STORING * np.abs(back).max(axis=-1)).max(axis=0)


def lossy_run(model: Model, ids: Sequence[int], bits: int) -> list[Token]:
    """What a run whose last block has a rounded cache holds at each token of a text.

    A cache of so few bits keeps the step of each row beside it: the bounds may read it.
    """
    layer = model.layers[-1]
    block = f"blocks.{layer.index}."
    seen: dict[str, np.ndarray] = {}

    def keep(name: str, value: Array) -> Array:
        if name.startswith(block):
            seen[name.removeprefix(block)] = to_numpy(value)
        return value

    logits = to_numpy(model.forward([ids], [last_block(model, bits)], "all", keep))
    wide = {name: value.astype(np.float64) for name, value in seen.items()}
    rows = [seen["attn.hook_rot_k"], seen["attn.hook_v"]]
    keys, values = (stored(x, bits, layer).astype(np.float64) for x in rows)
    key_step, value_step = (rounded(x, bits)[1] for x in rows)
    return [
        Token(
            q=wide["attn.hook_rot_q"][last] * layer.config.attention_scale,
            key_error=off_at_most(keys[: last + 1], key_step[: last + 1]),
            values=values[: last + 1],
            value_error=off_at_most(values[: last + 1], value_step[: last + 1]),
            mid=wide["hook_resid_mid"][last],
            gate=wide["mlp.hook_pre"][last],
            up=wide["mlp.hook_pre_linear"][last],
            post=wide["hook_resid_post"][last],
            logits=logits[last],
        )
        for last in range(len(ids))
    ]


def by_norms(weights: Behind, token: Token) -> np.ndarray:
    """How far the lead of the most likely token over each may move, ``(V,)``, in norms."""
    out, gate, up, down = weights.norms
    mid = out * float(np.linalg.norm([head_norm(*head) for head in token.heads()]))
    unit = unit_norm(token.mid, mid, weights.epsilon)
    largest = (np.abs(token.up).max(), token.silu.max())
    product = float(moved_product(gate * unit, up * unit, *largest))
    last = unit_norm(token.post, mid + down * product, weights.epsilon)
    top = int(token.logits.argmax())
    return last * (1 + ROUNDING) * weights.apart(top, lambda rows: np.linalg.norm(rows, axis=1))


def by_intervals(weights: Behind, token: Token) -> np.ndarray:
    """The same number by number, ``(V,)``."""
    heads = np.concatenate([head_intervals(*head) for head in token.heads()])
    mid = np.abs(weights.out) @ heads
    unit = unit_intervals(token.mid, mid, weights.epsilon)
    gate = np.abs(weights.gate) @ unit
    up = np.abs(weights.up) @ unit
    product = moved_product(gate, up, np.abs(token.up), token.silu)
    last = unit_intervals(token.post, mid + np.abs(weights.down) @ product, weights.epsilon)
    top = int(token.logits.argmax())
    return (1 + ROUNDING) * weights.apart(top, lambda rows: np.abs(rows) @ last)


def head_norm(shift: float, values: np.ndarray, eta: float) -> float:
    """How far a head is off where its weights move by so much in all; values ``(S, d)``."""
    middle = (values.max(axis=0) + values.min(axis=0)) / 2
    farthest = float(np.linalg.norm(values - middle, axis=1).max())
    return shift * farthest + math.sqrt(values.shape[1]) * eta


def head_intervals(shift: float, values: np.ndarray, eta: float) -> np.ndarray:
    """How far each number of a head is off, ``(d,)``."""
    return shift * np.ptp(values, axis=0) / 2 + eta


def moved_product(gate: Sizes, up: Sizes, largest_up: Sizes, largest_silu: Sizes) -> Sizes:
    """How far the MLP's product is off where gate and up are."""
    return SLOPE * gate * (largest_up + up) + largest_silu * up


def unit_norm(row: np.ndarray, off: float, epsilon: float) -> float:
    """How far a row's direction ``(D,)`` is off where the row is off by a norm."""
    length = math.sqrt(row @ row + epsilon)
    return min(2.0, off / (length - off / 2)) if off < 2 * length else 2.0


def unit_intervals(row: np.ndarray, off: np.ndarray, epsilon: float) -> np.ndarray:
    """How far each number of a row's direction is off, ``(D,)``, where the row's are."""
    length = math.sqrt(row @ row + epsilon)
    norm = float(np.linalg.norm(off))
    most = 1 + np.abs(row) / length
    if norm >= length:
        return most
    least = length - norm
    return np.minimum(most, off / least + np.abs(row) * norm / (length * least))
