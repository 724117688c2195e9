"""Optional packages: imported where they are used, and named by their extra where missing."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from types import ModuleType

from .errors import MissingExtraError

EXTRAS: dict[str, tuple[tuple[str, ...], str]] = {
    "chat": (("jinja2", "prompt_toolkit"), "chat templates, editing of lines"),
    "fetch": (("gguf", "huggingface_hub"), "models from the net, GGUF files"),
    "plots": (("matplotlib",), "plots of the experiments"),
    "numba": (("numba",), "compiled kernels"),
    "shell": (("shtab",), "completion of commands in a shell"),
    "notebooks": (("jupytext", "nbclient", "ipykernel"), "the course"),
}
"""The extras that a user may want: the modules that each brings, and what for."""


def missing(extra: str) -> str:
    """How to install what an extra of `EXTRAS` brings; empty if all of it is there."""
    modules, _ = EXTRAS[extra]
    lacking = [name for name in modules if importlib.util.find_spec(name) is None]
    if not lacking:
        return ""
    return f"run  {_pip()} install {' '.join(_packages(extra) or lacking)}"


def require(module: str, purpose: str) -> ModuleType:
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


def require_extra(module: str, extra: str, purpose: str) -> ModuleType:
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
    return _imported(module, purpose, extra)


def _imported(module: str, purpose: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).split(".")[0]  # of those that the module imports, too
        packages = _packages(extra) or [missing]
        brings = f" (the extra minikv[{extra}])" if extra else ""
        raise MissingExtraError(
            f"{purpose} needs the package {missing!r}, which is not installed: run  "
            f"{_pip()} install {' '.join(packages)}{brings}"
        ) from error


def _packages(extra: str) -> list[str]:
    """What an extra brings, quoted for a shell; nothing where minikv is not installed.

    The packages and not ``minikv[extra]``: an index may not have minikv, or another of its name.
    """
    import importlib.metadata  # 18 ms, which only this advice needs

    try:
        told = importlib.metadata.requires("minikv") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    marker = re.compile(rf"""extra == ['"]{re.escape(extra)}['"]""")
    return [f'"{line.split(";")[0].strip()}"' for line in told if marker.search(line)]


def _pip() -> str:
    """The command that installs into this Python, and pip first where there is none."""
    first = "" if importlib.util.find_spec("pip") else f"{sys.executable} -m ensurepip && "
    return f"{first}{sys.executable} -m pip"
