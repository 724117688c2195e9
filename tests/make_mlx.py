"""Write tests/fixtures/mlx: a small model whose matrices MLX quantised, packed and saved.

    pip install "mlx[cpu]" && python tests/make_mlx.py

MLX is Apple's; its package for processors runs on Linux too, and no test needs it: what it wrote
is kept. Beside ``model.safetensors``, in the layout of MLX's checkpoints, ``weights.safetensors``
holds what MLX itself makes of each matrix in float32.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import minikv
from minikv.config import expected_shapes

FOLDER = Path(__file__).parent / "fixtures" / "mlx"
GROUP = 32
BITS = 4


def main() -> None:
    import mlx.core as mx  # only whoever writes the fixture needs it

    mx.set_default_device(mx.cpu)
    config = minikv.tiny_config(
        hidden_size=64, intermediate_size=96, head_dim=16, vocab_size=24, num_hidden_layers=1
    )
    rng = np.random.default_rng(0)
    packed: dict[str, mx.array] = {}
    weights: dict[str, mx.array] = {}
    for name, shape in expected_shapes(config).items():
        given = mx.array(rng.normal(size=shape).astype(np.float32) / 8).astype(mx.bfloat16)
        if len(shape) == 1:
            packed[name] = given
            weights[name] = given.astype(mx.float32)
            continue
        words, scales, biases = mx.quantize(given, group_size=GROUP, bits=BITS)
        stem = name.removesuffix(".weight")
        packed[name] = words
        packed[f"{stem}.scales"] = scales
        packed[f"{stem}.biases"] = biases
        wide = (words, scales.astype(mx.float32), biases.astype(mx.float32))
        weights[name] = mx.dequantize(*wide, group_size=GROUP, bits=BITS)
    FOLDER.mkdir(exist_ok=True)
    made_by = {"format": "mlx", "mlx": mx.__version__}
    mx.save_safetensors(str(FOLDER / "model.safetensors"), packed, made_by)
    mx.save_safetensors(str(FOLDER / "weights.safetensors"), weights, made_by)
    settings = {"group_size": GROUP, "bits": BITS}
    contents = config.to_dict() | {"quantization": settings, "quantization_config": settings}
    text = json.dumps(contents, indent=1, sort_keys=True)
    (FOLDER / "config.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
