"""A target in a Python file of the user's: an adapter, a class of one, or a function."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path

from ...errors import InputError
from ..adapter import told


def target(file: str, name: str) -> object:
    """The object of this name in a file; a class is called without arguments."""
    path = Path(file).resolve()
    if path.suffix != ".py" or not path.is_file():
        raise InputError(f"{file:.80} is no Python file, expected FILE.py:NAME")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"{Path(file).name:.80} raised {told(error)}") from error
    if not hasattr(module, name):
        known = [known for known in vars(module) if not known.startswith("_")]
        raise InputError(f"{file:.80} has no {name:.40}; it has {', '.join(known):.120}")
    found = getattr(module, name)
    if not inspect.isclass(found):
        return found
    try:
        return found()
    except Exception as error:  # the user's code may raise anything
        raise InputError(
            f"{name:.40}() raised {told(error)}; it is called without arguments"
        ) from error
