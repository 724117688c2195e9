"""The errors that minikv raises for input that it cannot use.

Each message is one line that says what was given, what was expected and what to do.
The command line prints that line and exits with status 2.
"""

import sys
from typing import Any


class MinikvError(ValueError):
    """Base of every error that minikv raises on purpose."""


class ConfigError(MinikvError):
    """A configuration does not fit together, or names a feature that is not built."""


class WeightsError(MinikvError):
    """A checkpoint is missing, damaged, or does not fit its configuration."""


class FetchError(MinikvError):
    """A model could not be fetched: unknown name, lost network, wrong checksum, full disk."""


class TokenizerError(MinikvError):
    """A tokenizer or chat template is missing or cannot be used."""


class InputError(MinikvError):
    """Tokens, prompt, positions or sampling parameters that the model cannot take."""


class CacheError(MinikvError):
    """A cache parameter or saved cache state that cannot be used."""


class ArithmeticRangeError(MinikvError):
    """A value that the chosen arithmetic does not cover (NaN, infinity, scale overflow)."""


class MissingExtraError(MinikvError, ImportError):
    """An optional dependency is not installed; the message names the extra."""


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
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).split(".")[0]  # of those that the module imports, too
        raise MissingExtraError(
            f"{purpose} needs the package {missing!r}, which is not installed: "
            f'run  {sys.executable} -m pip install "minikv[{extra}]"'
        ) from error
