"""Sums whose terms lie on several ranks, with the bits that one process has.

A split product is three meetings of all ranks. The largest number of each row (`Comm.max`) fixes a
grid to cut numbers on; the exact sum of their absolute values (`Comm.sum`) fixes the grid on which
the rows are rounded, the one of the whole row; the products of the parts are then integers on one
grid, and are added up (`Comm.sum`) in whatever order. None of the three knows an order, so that
every rank has the same bits, and decides the same. No rank decides by an estimate of its own, as
`NumpyExact.grid` does within one process: where only one rank is in doubt, the others would not
come to the meeting.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arithmetic import Arithmetic, Exact, Float32, Matrix
from ..arithmetic.exact import LONGEST, MOST_ROWS, round_to
from ..arrays import Array, Inputs, Outputs, Stream, TokenIds, to_numpy
from ..errors import ArithmeticRangeError, InputError, RankError
from .comm import Comm


@dataclass(frozen=True)
class Columns:
    """The columns of a matrix that a rank has: its product is a part of a sum over ranks."""

    part: Matrix  # (N, K of the rank)
    name: str
    largest: float = math.inf  # no |value| of the whole matrix exceeds it


@dataclass(frozen=True)
class Words:
    """The rows of the embedding or of the output matrix that a rank has, from `first` on."""

    part: Matrix  # (V of the rank, D)
    first: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the rank's part."""
        return tuple(self.part.shape)


class SplitSums(Arithmetic):
    """What an arithmetic does where a sum's terms, or a table's rows, lie on several ranks.

    Attributes
    ----------
    whole : Arithmetic
        Does everything that one rank does alone.
    comm : Comm
    """

    whole: Arithmetic
    comm: Comm

    def columns(self, matrix: np.ndarray, name: str, terms: int) -> Columns:
        """Prepare a rank's columns of a matrix that has `terms` of them."""
        raise NotImplementedError

    def summed(self, x: Inputs, weight: Columns) -> Outputs:
        """x @ matrix.T, where each rank has some columns of both: ``(T, K) -> (T, N)``."""
        raise NotImplementedError

    def weight(self, matrix: np.ndarray, name: str, tied: bool = False) -> Matrix:
        return self.whole.weight(matrix, name, tied)

    def linear(self, x: Inputs, weight: Matrix) -> Outputs:
        if isinstance(weight, Columns):
            return self.summed(x, weight)
        if isinstance(weight, Words):
            return self.side_by_side(self.whole.linear(x, weight.part))
        return self.whole.linear(x, weight)

    def linears(self, x: Inputs, *weights: Matrix) -> tuple[Outputs, ...]:
        return self.whole.linears(x, *weights)

    def side_by_side(self, part: Outputs) -> Outputs:
        """All ranks' columns of a product, ``(T, N of the rank) -> (T, N)``."""
        parts = self.comm.gather(to_numpy(part))
        return self.xp.asarray(np.concatenate(parts, axis=1))

    def lookup(self, table: Words | Array, ids: TokenIds) -> Stream:
        """Rows of the embedding, each of which one rank has: the others add no bit to its bits.

        Numbers would not do: -0.0 + 0.0 is 0.0.
        """
        self.expect_same_ids(ids)
        if not isinstance(table, Words):
            return self.whole.lookup(table, ids)
        places = ids - table.first
        here = (places >= 0) & (places < table.shape[0])
        rows = self.whole.lookup(table.part, np.where(here, places, 0))
        given = np.ascontiguousarray(to_numpy(rows))
        bits = given.view(f"i{given.itemsize}")
        found = self.comm.sum(np.where(here[:, None], bits, 0).astype(bits.dtype))
        return self.xp.asarray(found.view(given.dtype))

    def expect_same_ids(self, ids: TokenIds) -> None:
        """Raise `RankError`, on every rank, unless all ranks run the same tokens."""
        all_ids = self.comm.gather(ids)
        for rank, theirs in enumerate(all_ids):
            if not np.array_equal(theirs, all_ids[0]):
                raise RankError(
                    f"rank {rank} runs the tokens {theirs.tolist()!s:.40}, rank 0 runs "
                    f"{all_ids[0].tolist()!s:.40}: their draws differ; use temperature 0"
                )

    def across(self, call: Callable[[np.ndarray], np.ndarray], array: Array) -> Array:
        """A call of all ranks, with an array of any library."""
        return self.xp.asarray(call(np.ascontiguousarray(to_numpy(array))))


class SplitExact(SplitSums, Exact):
    """`Exact` over ranks: the bits that it has on one."""

    def columns(self, matrix: np.ndarray, name: str, terms: int) -> Columns:
        if terms > LONGEST:
            raise ArithmeticRangeError(f"{name} sums over {terms} numbers, expected 1 to {LONGEST}")
        prepared = type(self.whole).weight(self, matrix, name)
        return Columns(prepared, name, prepared.largest)

    def row_tops(self, rows: np.ndarray, name: str) -> np.ndarray:
        """The largest absolute value of each row of a matrix, its other columns included."""
        return self.comm.max(super().row_tops(rows, name))

    def summed(self, x: Inputs, weight: Columns) -> Outputs:
        xp = self.xp
        if x.shape[0] > MOST_ROWS:
            starts = range(0, x.shape[0], MOST_ROWS)
            blocks = [self.summed(x[start : start + MOST_ROWS, :], weight) for start in starts]
            return xp.concat(blocks, axis=0)
        wide = xp.astype(x, xp.float64)
        size = xp.abs(wide)
        top = self.largest_of_all(size)
        self.expect_finite(top, [weight])  # type: ignore[list-item]  # a part
        row_sum = self.sum_of_all(size, top)
        # of the whole row, which no rank's own estimate may stand for
        grid = Exact.grid(self, size, row_sum, self.significand - self.weight_bits)
        rows = round_to(wide, grid)
        # `whole` is a kernel's arithmetic here, which has products of parts.
        product = self.whole.product(rows, weight.part)  # type: ignore[attr-defined]
        out = self.across(self.comm.sum, product)
        self.expect_float32(out, row_sum, weight)  # type: ignore[arg-type]  # a part
        out = self.narrow(out)
        out += 0.0  # -0.0, which a lone product may be, becomes +0.0
        return out

    def sum_of_all(self, size: Array, top: Array) -> Array:
        """`Exact.total` of rows whose parts lie on the ranks, ``(T, K) -> (T, 1)``."""
        halves = self.xp.concat(list(self.coarse_and_fine(size, top)), axis=1)
        halves = self.across(self.comm.sum, halves)  # (T, 2)
        return halves[:, :1] + halves[:, 1:]

    def largest_of_all(self, size: Array) -> Array:
        """The largest number of each row, over all ranks; NaN where any is, ``(T, 1)``.

        Engines differ in what the larger of a number and NaN is, so that NaN travels apart.
        """
        xp = self.xp
        top = xp.max(size, axis=-1, keepdims=True)
        unknown = xp.isnan(top)
        told = xp.concat([xp.where(unknown, 0.0, top), xp.astype(unknown, xp.float64)], axis=1)
        told = self.across(self.comm.max, told)  # (T, 2)
        return xp.where(told[:, 1:] > 0.0, math.nan, told[:, :1])


class SplitFloat(SplitSums, Float32):
    """Ordinary floating point over ranks: other bits for each split and order, as everywhere."""

    def columns(self, matrix: np.ndarray, name: str, terms: int) -> Columns:
        return Columns(self.whole.weight(matrix, name), name)

    def summed(self, x: Inputs, weight: Columns) -> Outputs:
        return self.across(self.comm.sum, self.whole.linear(x, weight.part))


def split_sums(arithmetic: Arithmetic, comm: Comm) -> SplitSums:
    """An arithmetic of any backend, with split sums taken through `comm`.

    Raises
    ------
    InputError
        If it is neither exact nor one of floating point.
    """
    kind = type(arithmetic)
    split: Any = SplitFloat
    if isinstance(arithmetic, Exact):
        split = SplitExact
    elif not isinstance(arithmetic, Float32):
        raise InputError(f"arithmetic {arithmetic.name!r} cannot be split over ranks; use 'exact'")
    twin: Any = copy.copy(arithmetic)
    twin.__class__ = type(split)(f"{split.__name__}Of{kind.__name__}", (split, kind), {})
    twin.whole = arithmetic
    twin.comm = comm
    return twin
