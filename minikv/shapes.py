"""Shapes of published models that need not be there, and what a token costs at a shape.

The shapes are ``config.json`` files in ``minikv/data/shapes/``, each with its `_source`.
"""

from __future__ import annotations

from importlib import resources

from .config import SLIDING, ModelConfig
from .errors import InputError

_FOLDER = resources.files("minikv") / "data" / "shapes"
SHAPES = tuple(sorted(file.name.removesuffix(".json") for file in _FOLDER.iterdir()))
"""Names of the shapes."""

PER_TOKEN = {
    "full_kv": "keys and values of all layers",
    "one_residual": "one residual",
    "kv_per_residual": "  keys and values / one residual",
    "residual_per_layer": "a residual at every layer",
    "residual_per_layer_per_kv": "  residual at every layer / keys and values",
    "token_id": "a token id",
    "unbounded_kv": "keys and values of layers that see all",
    "window_kv": "  and of sliding layers, for all tokens together",
}
"""What `per_token` counts, in words."""


def shape(name: str) -> ModelConfig:
    """The configuration of a model by name, without its weights.

    Raises
    ------
    InputError
        If the name is not one of `SHAPES`.

    Examples
    --------
    >>> shape("gemma-3-4b").num_parameters  # of the text model
    3880263168
    """
    if name not in SHAPES:
        raise InputError(f"shape {name!r} is unknown; choose {', '.join(SHAPES)}")
    with resources.as_file(_FOLDER / f"{name}.json") as path:
        return ModelConfig.from_file(path)


def per_token(config: ModelConfig) -> dict[str, dict[str, float]]:
    """What `PER_TOKEN` names, in bytes by dtype; its last two only where layers slide.

    Once their window is full, a cache that drops what no token can see any more holds for sliding
    layers as many tokens as the window, and grows by the others' K and V alone.

    Examples
    --------
    >>> per_token(shape("gemma-3-4b"))["unbounded_kv"]
    {'float32': 40960, 'bfloat16': 20480}
    """
    told: dict[str, dict[str, float]] = {}
    layers = config.num_hidden_layers
    sliding = config.layer_types.count(SLIDING)
    for dtype in ("float32", "bfloat16"):
        kv = config.kv_bytes_per_token(dtype)
        one = config.residual_bytes_per_token(dtype)
        local = kv // layers * sliding
        figures = {
            "full_kv": kv,
            "one_residual": one,
            "kv_per_residual": kv / one,
            "residual_per_layer": layers * one,
            "residual_per_layer_per_kv": layers * one / kv,
            "token_id": 4,
        }
        if sliding:
            figures["unbounded_kv"] = kv - local
            figures["window_kv"] = local * (config.sliding_window or 0)
        for key, figure in figures.items():
            told.setdefault(key, {})[dtype] = figure
    return told
