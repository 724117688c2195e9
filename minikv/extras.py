"""Optional packages: imported where they are used, and named by their extra where missing."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from .errors import MissingExtraError


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
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).split(".")[0]  # of those that the module imports, too
        raise MissingExtraError(
            f"{purpose} needs the package {missing!r}, which is not installed: "
            f'run  {sys.executable} -m pip install "minikv[{extra}]"'
        ) from error
