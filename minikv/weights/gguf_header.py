"""The lengths that a GGUF file states, against its size.

The ``gguf`` package trusts them: a length of 2**60 has it count to 2**60. The layout is that of
GGUF 2 and 3: magic, version, counts, then keys with their values, then tensors.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from ..errors import WeightsError

MOST_ITEMS = 2**22
"""Of one array: 16 times the vocabulary of Gemma 3."""

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes by type
_STRING = 8  # types of more than one number
_ARRAY = 9
_MOST_DIMENSIONS = 4


def check_header(path: Path) -> None:
    """Raise `WeightsError` where a header states more than its file can hold."""
    with open(path, "rb") as file:
        try:
            _Walk(file, os.fstat(file.fileno()).st_size).header()
        except ValueError as error:
            raise WeightsError(f"it is no usable GGUF file: {error}") from None


class _Walk:
    """A walk over a header that reads lengths and steps over the rest."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def header(self) -> None:
        if self._bytes(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version = self._number(4)
        if version not in (2, 3):
            raise ValueError(f"its version is {version}, expected 2 or 3, the lowest byte first")
        tensors = self._number(8)
        keys = self._number(8)
        for _ in range(keys):
            self._string()
            self._value(self._number(4))
        for _ in range(tensors):
            self._string()
            dimensions = self._number(4)
            if dimensions > _MOST_DIMENSIONS:
                raise ValueError(f"a tensor has {dimensions} dimensions")
            self._skip(8 * dimensions + 4 + 8)  # the type, and where it begins

    def _value(self, kind: int) -> None:
        if kind == _STRING:
            self._string()
        elif kind == _ARRAY:
            self._array()
        elif kind in _SIZES:
            self._skip(_SIZES[kind])
        else:
            raise ValueError(f"a value has the type {kind}")

    def _array(self) -> None:
        kind = self._number(4)
        items = self._number(8)
        if items > MOST_ITEMS:
            raise ValueError(f"an array has {items} items, expected at most {MOST_ITEMS}")
        if kind == _STRING:
            for _ in range(items):
                self._string()
        elif kind in _SIZES:
            self._skip(items * _SIZES[kind])
        else:
            raise ValueError(f"an array holds values of the type {kind}")

    def _string(self) -> None:
        self._skip(self._number(8))

    def _number(self, size: int) -> int:
        return int.from_bytes(self._bytes(size), "little")

    def _bytes(self, count: int) -> bytes:
        self._need(count)
        return self._file.read(count)

    def _skip(self, count: int) -> None:
        self._need(count)
        self._file.seek(count, os.SEEK_CUR)

    def _need(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ValueError("it is cut short, or states lengths beyond its end")
