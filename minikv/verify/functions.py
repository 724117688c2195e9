"""The functions of a module as they are in memory: what runs, whatever its file says."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cached_property
from types import CodeType, FunctionType, ModuleType


def functions_of(module: ModuleType) -> Iterator[FunctionType]:
    """The functions that a module defines, and the methods of its classes."""
    for value in list(vars(module).values()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            for member in vars(value).values():
                yield from _unwrapped(member)
        else:
            yield from _unwrapped(value)


def _unwrapped(member: object) -> Iterator[FunctionType]:
    """The function that a property, a static method or a decorator holds."""
    if isinstance(member, property):
        member = member.fget
    elif isinstance(member, cached_property):
        member = member.func
    elif isinstance(member, (staticmethod, classmethod)):
        member = member.__func__
    if callable(member):
        member = inspect.unwrap(member)
    if isinstance(member, FunctionType):
        yield member


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """All code that stands inside of a code: inner functions and their own."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from codes_in(constant)
