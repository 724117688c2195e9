"""Every hint is there, and the code in it runs: on the names that its reader has at that place."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("jupytext", reason="needs the extra `notebooks`")
pytest.importorskip("hypothesis", reason="needs the extra `notebooks`")

import build
from exercises import e01, e08, hints
from solutions import s05
from test_write import written

import minikv
from minikv.build import random_tensors
from minikv.course.catalogue import tasks_in
from minikv.decoder import Span, block, unembed
from minikv.fingerprint import fingerprint

TASKS = [
    task
    for source in build.sources([])
    for task in tasks_in(
        source.name[:2], [(c.cell_type, c.source) for c in build.read(source).cells]
    )
]
IDS = [3, 1, 4]
WORDS = {"+=", "=", "vt", "(T, 1)", "keepdims=True", "float16", "while"}
"""What stands in hints as code and is none: operators, a shape, an argument, what `svd` returns."""


def names() -> dict:
    """What readers have: the library, and each task's arguments, small."""
    own = written("01")
    config = minikv.tiny_config(tie_word_embeddings=True)
    model = minikv.random_model(config, 1, "exact")
    stream = model.run_with_cache(IDS)[1]["blocks.1.hook_resid_pre"]
    rows = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    space = {
        "np": np,
        "minikv": minikv,
        "hashlib": hashlib,
        "Span": Span,
        "block": block,
        "unembed": unembed,
        "e08": e08,
        "largest_budget": s05.largest_budget,
        "attention": own["attention"],
        "widen": own["widen"],
        "narrow": own["narrow"],
        "sums": e01.EXACT,
        "config": config,
        "model": model,
        "layer": model.layers[1],
        "stream": stream,
        "rows": stream,
        "positions": np.arange(3),
        "checkpoints": {0: stream},
        "ids": IDS,
        "name": "blocks.1.hook_resid_pre",
        "function": lambda value, name: value,
        "memory": {},
        "value": stream,
        "h0": stream,
        "weights": np.ones(3) / 3,
        "keep": np.array([True, False, True]),
        "pattern": np.ones((4, 3, 3)),
        "groups": 2,
        "round_to": lambda x, grid: x,
        "matrix": np.ones((2, 3)),
        "grid": 0.5,
    }
    single = dict.fromkeys(("start", "index", "head", "cut"), 0)
    numbers = dict.fromkeys(("s", "t", "new", "eps"), 1.0)
    counts = {"n": 2, "j": 0, "half": 1, "budget": 4, "sinks": 2, "length": 3, "head_dim": 6}
    return (
        space
        | single
        | numbers
        | counts
        | {"q": rows, "num_attention_heads": 4}
        | {
            "num_key_value_heads": 2,
            "up": np.ones((3, 6)),
            "gate": np.ones((3, 6), dtype=np.float32),
        }
    )


def arguments(name: str) -> dict:
    """Names that mean something else in one task."""
    own, config = written("01"), minikv.tiny_config(tie_word_embeddings=True)
    heads = np.ones((3, 2, 6), dtype=np.float32)
    if name == "01.rope":
        return {"x": heads, "cos": np.ones((3, 1, 3)), "sin": np.ones((3, 1, 3))}
    if name == "01.block":
        return {"resid_pre": heads[:, 0], "attend": lambda x: x}
    if name == "01.decoder":
        w = own["prepare"](random_tensors(config, 1), e01.EXACT)
        x = w["embedding"][IDS]
        return {"w": w, "x": x, "block": own["block"], "block_halves": own["block_halves"]}
    if name == "04.replay_kv":
        return {"layer": 1}
    if name == "05.recompute":
        return {"layer": 1}
    if name == "09.lanes":
        return {"sums": [0.0, 0.0], "x": [1.0], "w": [2.0]}
    if name == "09.bytes_enough":
        return {"w": np.ones(2)}
    if name == "00.commonest":
        return {"Counter": Counter, "pairwise": itertools.pairwise, "pieces": list("abc")}
    if name == "00.machine":
        return {"fingerprint": fingerprint}
    return {"x": np.ones((2, 3)), "y": np.ones((2, 3))}


def fragments(text: str) -> list[str]:
    """The code in a hint."""
    return re.findall(r"`([^`]+)`", text)


def run(code: str, space: dict) -> None:
    """Run a piece of a hint; a method without its object is asked of an array."""
    if re.fullmatch(r"\.?\w+\(.*\)", code) and not re.match(r"[\w.]+\(", code.split(".")[0]):
        code = f"np.ones(2, np.float32){code}"
    elif code == "tobytes()":
        code = "np.ones(2).tobytes()"
    exec(code, space)


@pytest.mark.parametrize("task", TASKS, ids=[f"{t.chapter}.{t.name}" for t in TASKS])
def test_the_code_in_a_hint_runs(task):
    assert task.hint
    space = names() | arguments(f"{task.chapter}.{task.name}")
    seen = space["model"].run_with_cache(IDS)[1]
    for code in fragments(hints.plain(task.hint)):
        if code in WORDS:
            continue
        if "hook_" in code and "(" not in code:
            assert any(name.endswith(code.strip('"')) for name in seen), code
            continue
        run(code, space)


def test_a_hint_that_does_not_run_is_found():
    space = names() | arguments("02.keys")
    with pytest.raises(TypeError):
        run("layer.turned(q, layer.rotary(positions), layer.arithmetic)", space)


def test_hints_are_found_by_chapter_and_name(capsys, tmp_path, monkeypatch):
    file = tmp_path / "hints.json"
    file.write_text(json.dumps({"01.share": "Look.", "01.unrope": "Turn back."}))
    monkeypatch.setattr(hints, "FILE", file)
    hints.hint("01.share")
    hints.hint("01.shared")
    assert capsys.readouterr().out == (
        "Look.\nThere is no hint '01.shared'; there are 01.share, 01.unrope.\n"
    )
