"""The commands of ``minikv``, one a file: a new command is a new file here, and nothing else.

The file is named as the command, with ``_`` for ``-``. It has

* ``SUMMARY``, its line in ``minikv --help``;
* ``DESCRIPTION`` and ``EXAMPLES``, which its own ``--help`` prints as they stand;
* ``add_arguments(parser)``, which adds its options;
* ``run(args)``, which does it and returns the exit code, or None for 0.

Files without ``run`` are what commands share. What is slow to import is imported inside ``run``.
"""

from __future__ import annotations

import pkgutil
from argparse import ArgumentParser, Namespace
from importlib import import_module
from typing import Any, Protocol


class Command(Protocol):
    """What the module of a command has."""

    SUMMARY: str
    DESCRIPTION: str
    EXAMPLES: str

    def add_arguments(self, parser: ArgumentParser, /) -> None:
        """Add the options."""

    def run(self, args: Namespace, /) -> int | None:
        """Do it, and return the exit code."""


def find_commands() -> dict[str, Command]:
    """Every command by name, in the order of the alphabet.

    Examples
    --------
    >>> "generate" in find_commands()
    True
    """
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules: dict[str, Any] = {name: import_module(f"{__name__}.{name}") for name in names}
    return {
        name.replace("_", "-"): module for name, module in modules.items() if hasattr(module, "run")
    }
