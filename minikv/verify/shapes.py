"""Known shapes: ``config.json`` files in ``minikv/data/shapes/``, each with its `_source`."""

from __future__ import annotations

from importlib import resources

from ..config import ModelConfig
from ..errors import InputError

_FOLDER = resources.files("minikv") / "data" / "shapes"
SHAPES = tuple(sorted(file.name.removesuffix(".json") for file in _FOLDER.iterdir()))


def shape(name: str) -> ModelConfig:
    """The configuration of a model by name, without its weights.

    Examples
    --------
    >>> shape("gemma-3-4b").num_parameters  # of the text model
    3880263168
    """
    if name not in SHAPES:
        raise InputError(f"shape {name!r} is unknown; choose {', '.join(SHAPES)}")
    with resources.as_file(_FOLDER / f"{name}.json") as path:
        return ModelConfig.from_file(path)
