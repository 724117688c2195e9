"""Optional packages: imported where they are used, and named by their extra where missing."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from .errors import MissingExtraError


def require(module: str, purpose: str) -> Any:
    """Import a package that not all of minikv needs, or say what needs it.

    Parameters
    ----------
    module : str
        Import name, which is also the package's: ``"safetensors"``.
    purpose : str
        What the module is needed for, as a noun phrase.

    Raises
    ------
    MissingExtraError
        If the module cannot be imported.
    """
    return _imported(module, purpose, "")


def require_extra(module: str, extra: str, purpose: str) -> Any:
    """Import an optional module, or say which extra brings it.

    Parameters
    ----------
    module : str
        Import name, for example ``"jinja2"``.
    extra : str
        Name of the extra in ``pyproject.toml``.
    purpose : str
        What the module is needed for, as a noun phrase.

    Raises
    ------
    MissingExtraError
        If the module cannot be imported.
    """
    return _imported(module, purpose, f"minikv[{extra}]")


def _imported(module: str, purpose: str, requirement: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).split(".")[0]  # of those that the module imports, too
        raise MissingExtraError(
            f"{purpose} needs the package {missing!r}, which is not installed: "
            f'run  {sys.executable} -m pip install "{requirement or missing}"'
        ) from error
