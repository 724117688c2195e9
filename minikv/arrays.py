"""Arrays by kind: which letters of `minikv.config` their shapes are made of.

An array belongs to whichever library computes (NumPy, PyTorch, CuPy, JAX, or the labels of the
dataflow certificate), so that its Python type says little. What is known of it is its shape:
``Stream`` is an array of shape ``(T, D)``, and a function decorated with `shaped` that is given
another says so. The check is made while tests run, where ``MINIKV_CHECK_SHAPES`` is set to 1, and
costs nothing elsewhere.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import DTypeLike

Array = Any
"""An array of the library that computes; `numpy.ndarray` by default."""

DType = Any
"""The type of an array's numbers, as the library that computes names it."""

Positions = Annotated[np.ndarray, "T"]  # whole numbers, always NumPy's
TokenIds = Annotated[np.ndarray, "T"]
Stream = Annotated[Array, "T D"]
Queries = Annotated[Array, "T H d"]
NewKeys = Annotated[Array, "T G d"]  # of the tokens of a call
NewValues = Annotated[Array, "T G d"]
Keys = Annotated[Array, "S G d"]  # of all tokens that those attend to
Values = Annotated[Array, "S G d"]
Scores = Annotated[Array, "H T S"]  # scale * q . k
Pattern = Annotated[Array, "H T S"]  # attention's weights; a row adds up to 1
HeadOutputs = Annotated[Array, "T H d"]
Features = Annotated[Array, "T F"]
Heads = Annotated[Array, "T heads d"]
Turns = Annotated[Array, "T 1 d"]  # cosines or signed sines
Inputs = Annotated[Array, "T K"]  # any rows that a matrix is multiplied by
Outputs = Annotated[Array, "T N"]
Logits = Annotated[Array, "rows V"]

Function = TypeVar("Function", bound=Callable[..., Any])

CHECKED = os.environ.get("MINIKV_CHECK_SHAPES") == "1"
"""Whether `shaped` checks anything; read once, when minikv is imported."""


class ShapeError(AssertionError):
    """An array does not have the shape that the annotation says."""


def shaped(function: Function) -> Function:
    """Check the arguments and the result of a function against the shapes in its annotations.

    A letter stands for one number throughout a call. Where an argument has a configuration, the
    letters that it fixes (D, F, H, G, d, V) stand for its numbers.

    Examples
    --------
    >>> def halved(x: Stream) -> Stream:
    ...     return x[:, :1]
    >>> with_shapes(halved)(np.zeros((3, 2)))
    Traceback (most recent call last):
    ...
    minikv.arrays.ShapeError: halved: the result has shape (3, 1), expected T D = (3, 2)
    """
    return with_shapes(function) if CHECKED else function


def with_shapes(function: Function) -> Function:
    """`shaped`, whether tests run or not."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        hints = _hints(function)
        given = signature.bind(*args, **kwargs).arguments
        letters: dict[str, int] = {}
        for value in given.values():
            if not hasattr(value, "shape"):  # an array has no configuration
                letters |= _fixed(getattr(value, "config", None))
        for name, value in given.items():
            for kind, array in _annotated(hints.get(name), value):
                _check(f"{function.__name__}: {name}", kind, array, letters)
        result = function(*args, **kwargs)
        for kind, array in _annotated(hints.get("return"), result):
            _check(f"{function.__name__}: the result", kind, array, letters)
        return result

    return checked  # type: ignore[return-value]  # it is called as the function is


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(function, include_extras=True)


def _fixed(config: Any) -> dict[str, int]:
    """The letters that a configuration fixes."""
    if config is None:
        return {}
    return {
        "V": config.vocab_size,
        "D": config.hidden_size,
        "F": config.intermediate_size,
        "H": config.num_attention_heads,
        "G": config.num_key_value_heads,
        "d": config.head_dim,
    }


def _annotated(hint: Any, value: Any) -> Iterator[tuple[str, Any]]:
    """Each array in a value beside the shape that its annotation says."""
    origin = get_origin(hint)
    if value is None or hint is None:
        return
    if origin is Annotated:
        yield hint.__metadata__[0], value
    elif origin in (Union, UnionType):
        for option in get_args(hint):
            yield from _annotated(option, value)
    elif origin is tuple:
        for part, item in zip(get_args(hint), value, strict=False):
            yield from _annotated(part, item)


def _check(what: str, kind: str, array: Any, letters: dict[str, int]) -> None:
    """Bind the letters that are new, and compare the others."""
    names = kind.split()
    shape = tuple(getattr(array, "shape", ()))
    fits = len(shape) == len(names)
    expected = []
    for number, name in enumerate(names):
        if name.isdigit():
            expected.append(int(name))
        elif fits:
            expected.append(letters.setdefault(name, shape[number]))
        else:
            expected.append(letters.get(name, -1))
    if not fits or shape != tuple(expected):
        known = tuple(number if number >= 0 else "any" for number in expected)
        raise ShapeError(f"{what} has shape {shape}, expected {kind} = {known}")


def to_numpy(array: Array, dtype: DTypeLike | None = None) -> np.ndarray:
    """An array of any library in NumPy; the one place where numbers leave a device."""
    for leave in ("get", "cpu"):  # CuPy's name for it, and PyTorch's
        if hasattr(array, leave):
            array = getattr(array, leave)()
    return np.asarray(array, dtype=dtype)
