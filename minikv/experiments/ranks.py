"""Effective ranks of the score matrices W_q^T W_k, and what their truncation may change.

Section 3.3 of the paper: a head's score of two rows is ``h_i M h_j / sqrt(d)`` with
``M = W_q^T W_k``, a ``(D, D)`` matrix of rank d at most. (The paper writes W_q W_k^T, for matrices
that are applied from the right; ours, as files hold them, are ``(d, D)``.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..arrays import Array, to_numpy
from ..errors import InputError
from ..layers import Layer
from ..model import Model

SHARE = 0.9
UNIT = 2.0**-53  # of the rounding of a float64


@dataclass(frozen=True, eq=False)
class Head:
    """What makes the scores of one query head: float64.

    Attributes
    ----------
    layer : Layer
    index : int
        Of the query head.
    query, key : (d, D)
        Rows of W_q, and those of W_k that the head shares with its group.
    """

    layer: Layer
    index: int
    query: np.ndarray
    key: np.ndarray

    @property
    def norm(self) -> np.ndarray:
        """What the norm before the projections multiplies by, ``(D,)``."""
        return to_numpy(self.layer.input_layernorm, dtype=np.float64)

    @cached_property
    def factors(self) -> Factors:
        """Singular values and vectors of ``W_q^T W_k``."""
        left, upper_left = np.linalg.qr(self.query.T)
        right, upper_right = np.linalg.qr(self.key.T)
        u, sigma, v = np.linalg.svd(upper_left @ upper_right.T)
        return Factors(left @ u, sigma, right @ v.T)

    @cached_property
    def left_over(self) -> float:
        """``|W_q^T W_k - U S V^T|`` in the Frobenius norm, and what its own rounding may hide."""
        factors = self.factors
        product = self.query.T @ self.key
        scaled = factors.left * factors.sigma
        rebuilt = scaled @ factors.right.T
        terms = abs(self.query).T @ abs(self.key) + abs(scaled) @ abs(factors.right).T
        hidden = _gamma(len(factors.sigma) + 3) * np.linalg.norm(terms)
        return float(np.linalg.norm(product - rebuilt) + hidden)


@dataclass(frozen=True, eq=False)
class Factors:
    """A ``(D, D)`` matrix of rank d: ``left @ diag(sigma) @ right.T``; (D, d), (d,), (D, d)."""

    left: np.ndarray
    sigma: np.ndarray
    right: np.ndarray


def heads(model: Model, every: int = 1) -> Iterator[Head]:
    """The query heads of every layer, or of every second, third, ... one.

    Raises
    ------
    InputError
        If the model's matrices are not plain arrays: load it in float32 or float64.
    """
    if model.arithmetic.name not in ("float32", "float64"):
        raise InputError(
            f"arithmetic {model.arithmetic.name} prepares matrices in a form of its own; "
            "load the model in float32 or float64 to read them"
        )
    config = model.config
    for layer in model.layers[::every]:
        queries = _by_head(layer.q_proj, config.head_dim)
        keys = _by_head(layer.k_proj, config.head_dim)
        for index, query in enumerate(queries):
            yield Head(layer, index, query, keys[index * len(keys) // len(queries)])


def _by_head(matrix: Array, head_dim: int) -> np.ndarray:
    """``(heads * d, D) -> (heads, d, D)`` in float64."""
    rows = to_numpy(matrix, dtype=np.float64)
    return rows.reshape(-1, head_dim, rows.shape[1])


def effective_rank(sigma: np.ndarray, power: int = 2, share: float = SHARE) -> int:
    """The smallest r whose r largest ``sigma**power`` add up to `share` of all.

    Examples
    --------
    >>> effective_rank(np.array([3.0, 2.0, 1.0])), effective_rank(np.array([3.0, 2.0, 1.0]), 4)
    (2, 2)
    >>> effective_rank(np.array([2.0, 1.0, 1.0])), effective_rank(np.array([2.0, 1.0, 1.0]), 4)
    (3, 2)
    """
    sums = np.cumsum(np.sort(sigma)[::-1] ** power)
    return int(np.searchsorted(sums, share * sums[-1])) + 1


@dataclass(frozen=True)
class Reading:
    """A way to take a head's effective rank from its two matrices.

    Parameters
    ----------
    text : str
        What it is, for a table.
    power : int
        Of the singular values that are added up; the paper's formula has 2.
    normed : {"", "q", "qk"}
        Which of the two matrices is multiplied by the norm's weight first.
    stored : bool
        Whether the matrix is ``(d, d)``: ``W_q W_k^T`` with both matrices ``(d, D)`` as files hold
        them. It makes no score, but is what the paper's letters give for such matrices.
    offset : int
        How far the query is turned on from the key by rotary positions.
    """

    text: str
    power: int = 2
    normed: str = ""
    stored: bool = False
    offset: int = 0

    def rank(self, head: Head) -> int:
        """The effective rank of a head."""
        return effective_rank(self.singular_values(head), self.power)

    def singular_values(self, head: Head) -> np.ndarray:
        """Of the head's matrix in this reading; ``(d,)``."""
        query = head.query
        key = head.key
        if "q" in self.normed:
            query = query * head.norm
        if "k" in self.normed:
            key = key * head.norm
        if self.offset:
            query = turned(query, head.layer, self.offset)
        if self.stored:
            return np.linalg.svd(query @ key.T, compute_uv=False)
        upper_query = np.linalg.qr(query.T).R
        upper_key = np.linalg.qr(key.T).R
        return np.linalg.svd(upper_query @ upper_key.T, compute_uv=False)


READINGS = (
    Reading("the formula: sigma^2 of the score matrix"),
    Reading("the formula, norm's weight folded in", normed="qk"),
    Reading("sigma^4 for sigma^2", power=4),
    Reading("sigma^4, norm's weight folded in", power=4, normed="qk"),
    Reading("(d, d) product of the stored matrices", stored=True),
    Reading("(d, d) product, norm's weight on the query's side", normed="q", stored=True),
)
OFFSETS = (1, 16, 256)
ROTATED = tuple(
    Reading(f"the formula, query turned {offset} positions on", offset=offset) for offset in OFFSETS
)


def turned(matrix: np.ndarray, layer: Layer, position: int) -> np.ndarray:
    """A head's ``(d, D)`` matrix, followed by the rotation of a position.

    Each column is what a unit vector of the stream is projected to. The angles are those of the
    layer, in its arithmetic.
    """
    columns = layer.arithmetic.xp.asarray(matrix.T[:, None, :], dtype=layer.arithmetic.dtype)
    rotated = layer.turned(columns, np.full(len(columns), position))
    return to_numpy(rotated, dtype=np.float64)[:, 0, :].T


# Equation 22


@dataclass(frozen=True)
class Truncation:
    """How far rank-r scores are off, as shares of what equation 22 allows; the largest of all.

    Parameters
    ----------
    error : float
        Against ``sigma_{r+1} |h_i| |h_j| / sqrt(d)`` and the rounding below: at most 1 where the
        inequality holds.
    control : float
        Against ``sigma_{r+2}`` in its place: above 1 where the bound is no smaller than it must be.
    rounding : float
        What of the bound is there for the rounding of this computation.
    """

    error: float
    control: float
    rounding: float


def truncation(head: Head, left: np.ndarray, right: np.ndarray, rank: int) -> Truncation:
    """Compare scores with those of rank `rank`, and the difference with equation 22.

    With the computed ``U S V^T`` the matrix that truncation leaves away is
    ``(M - U S V^T) + U_2 S_2 V_2^T``, where ``S_2`` begins with sigma_{r+1}. So the bound is

        sigma_{r+1} |U_2| |V_2| + |M - U S V^T|,

    times ``|h_i| |h_j| / sqrt(d)``, of which the root is on both sides and left out. The norms of
    U_2 and V_2, 1 if the columns were orthonormal, are at most ``sqrt(1 + |U^T U - I|)``, and the
    second term is 0 but for rounding: both are measured, in the Frobenius norm. To that comes the
    rounding of the scores themselves, three products one after the other (Higham, Accuracy and
    Stability, 2nd ed., lemma 3.3 and equation 3.13): ``gamma_n`` of the same products of absolute
    values, with n terms in all.

    Parameters
    ----------
    head : Head
    left, right : (T, D) and (S, D)
        Rows that ask, and rows that are asked: the stream as the projections read it.
    rank : int
        From 1 to d - 2, so that there is a sigma_{r+2}.

    Raises
    ------
    InputError
        If the rank is out of range.
    """
    factors = head.factors
    width = len(factors.sigma)
    if not 1 <= rank <= width - 2:
        raise InputError(f"rank is {rank}, expected 1 to {width - 2}: the head has {width} numbers")
    lengths = np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=1)
    exact = (left @ head.query.T) @ (right @ head.key.T).T
    kept = (left @ factors.left[:, :rank]) * factors.sigma[:rank]
    error = abs(exact - kept @ (right @ factors.right[:, :rank]).T)
    rounding = head.left_over * lengths + _rounding(head, left, right)
    stretched = _stretch(factors.left) * _stretch(factors.right) * lengths
    allowed = factors.sigma[rank] * stretched + rounding
    too_little = factors.sigma[rank + 1] * stretched + rounding
    return Truncation(
        error=float((error / allowed).max()),
        control=float((error / too_little).max()),
        rounding=float((rounding / allowed).max()),
    )


def _rounding(head: Head, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """What the rounding of scores and of rank-r scores may come to, ``(T, S)``."""
    factors = head.factors
    width, hidden = head.query.shape
    asked = (abs(left) @ abs(head.query).T) @ (abs(right) @ abs(head.key).T).T
    kept = (abs(left) @ abs(factors.left)) * factors.sigma
    truncated = kept @ (abs(right) @ abs(factors.right)).T
    return _gamma(2 * hidden + width + 4) * (asked + truncated)


def _stretch(columns: np.ndarray) -> float:
    """At most how far a matrix whose columns should be orthonormal stretches a vector."""
    hidden, width = columns.shape
    defect = np.linalg.norm(columns.T @ columns - np.eye(width)) + _gamma(hidden) * width
    return math.sqrt(1 + defect)


def _gamma(terms: int) -> float:
    """Higham's gamma_n of float64, doubled, which covers that it is itself computed."""
    return 2 * terms * UNIT / (1 - terms * UNIT)
