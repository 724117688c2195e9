"""Faults planted in running code: a change of the text of a function, for as long as a block runs.

A fault is a file of ``minikv/``, a text that stands in it once, and what takes its place. The
changed file is compiled, and every function of the module whose code is then another gets that
code. Nothing is imported anew, so that classes, caches and registries stay what they are; a change
outside of functions cannot be planted so, and is refused.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from minikv.verify.cases import model_of
from minikv.verify.functions import codes_in, functions_of

PACKAGE = Path(__file__).resolve().parents[1] / "minikv"


@dataclass(frozen=True)
class Fault:
    """One text in one file of ``minikv/``, above the line `until`, and what takes its place."""

    file: str
    old: str
    new: str
    until: str = ""

    def changed(self) -> str:
        """The file with the fault in it."""
        source = (PACKAGE / self.file).read_text(encoding="utf-8")
        end = source.index(f"\n{self.until}") if self.until else len(source)
        count = source.count(self.old, 0, end)
        if count != 1:
            raise ValueError(f"{self.old!r} stands {count} times in {self.file}, expected once")
        return source[:end].replace(self.old, self.new) + source[end:]

    @property
    def module(self) -> ModuleType:
        """The module that the file makes."""
        dotted = self.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        return importlib.import_module(f"minikv.{dotted}")


@contextmanager
def planted(*faults: Fault) -> Iterator[None]:
    """Run a block with faults in the code; all models that were built are forgotten."""
    with ExitStack() as stack:
        for fault in faults:
            stack.enter_context(_planted(fault))
        model_of.cache_clear()
        stack.callback(model_of.cache_clear)
        yield


@contextmanager
def _planted(fault: Fault) -> Iterator[None]:
    before = _codes((PACKAGE / fault.file).read_text(encoding="utf-8"), fault.file)
    after = _codes(fault.changed(), fault.file)
    kept: list[tuple[FunctionType, CodeType]] = []
    for function in functions_of(fault.module):
        name = function.__code__.co_qualname
        if name in after and _body(after[name]) != _body(before[name]):
            kept.append((function, function.__code__))
            function.__code__ = after[name]
    try:
        if not kept:
            raise ValueError(f"{fault.new!r} changes no function of {fault.file}")
        yield
    finally:
        for function, code in kept:
            function.__code__ = code


def _codes(source: str, file: str) -> dict[str, CodeType]:
    """All code in a source, by qualified name."""
    return {code.co_qualname: code for code in codes_in(compile(source, file, "exec"))}


def _body(code: CodeType) -> tuple[object, ...]:
    """What makes two codes do the same, whatever lines they stand on."""
    constants = tuple(
        _body(constant) if isinstance(constant, CodeType) else (type(constant), constant)
        for constant in code.co_consts
    )
    return (code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars)
