"""Wrong input to any command ends in one line and exit code 2, and changes nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from contents import contents
from safetensors.numpy import load_file, save_file


def edit_tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = {name: t.copy() for name, t in load_file(folder / "model.safetensors").items()}
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return damage


def edit_config(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return damage


def edit_header(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        raw = (folder / "model.safetensors").read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        size = len(text).to_bytes(8, "little")
        (folder / "model.safetensors").write_bytes(size + text + raw[8 + length :])

    return damage


def truncate(folder: Path) -> None:
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(raw[: len(raw) // 2])


def point_outside(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "secret.safetensors")
    index = {"weight_map": {"model.norm.weight": "../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def overlap(header: dict) -> None:
    names = [name for name in header if name != "__metadata__"]
    same_shape = [n for n in names if header[n]["shape"] == header[names[0]]["shape"]]
    first, second = (same_shape * 2)[:2] if len(same_shape) > 1 else names[:2]
    header[second]["data_offsets"] = header[first]["data_offsets"]


NORM, QUERY = "model.norm.weight", "model.layers.1.self_attn.q_proj.weight"
DAMAGED = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    "truncated": (truncate, "model.safetensors"),
    "lying size": (edit_header(lambda h: h[NORM].update(shape=[4800])), "offset"),
    "offsets out of range": (edit_header(lambda h: h[NORM].update(data_offsets=[0, 2**60])), NORM),
    "overlap": (edit_header(overlap), "model.safetensors"),
    "missing tensor": (edit_tensors(lambda t: t.pop(QUERY)), QUERY),
    "missing layer": (edit_config(num_hidden_layers=4), "model.layers.3 is missing"),
    "extra tensor": (edit_tensors(lambda t: t.update(surplus=np.zeros(3, "f4"))), "surplus"),
    "wrong shape": (edit_tensors(lambda t: t.update({QUERY: t[QUERY][:-1]})), QUERY),
    "shard outside": (point_outside, "../secret.safetensors"),
    "NaN": (edit_tensors(lambda t: t[QUERY].__setitem__((0, 0), np.nan)), QUERY),
    "infinity": (edit_tensors(lambda t: t[NORM].__setitem__(0, -np.inf)), NORM),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "heads do not fit": (edit_config(num_key_value_heads=4), "num_key_value_heads"),
    "negative size": (edit_config(hidden_size=-48), "hidden_size"),
    "feature not built": (edit_config(attention_bias=True), "attention_bias"),
    "family not built": (edit_config(model_type="mamba"), "mamba"),
    "broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_model_is_refused_in_one_line(name, refused, folder):
    damage, said = DAMAGED[name]
    damage(folder)
    before = contents(folder.parent)
    assert said in refused("generate", "Hello", "--model", folder)
    assert contents(folder.parent) == before


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--temperature", "-1"], "temperature is -1.0"),
        (["--temperature", "nan"], "temperature is nan"),
        (["--temperature", "warm"], "--temperature"),
        (["--top-k", "0"], "top_k is 0"),
        (["--top-k", "2.5"], "--top-k"),
        (["--top-k", "5"], "give a temperature above 0"),
        (["--top-p", "0"], "top_p is 0.0"),
        (["--top-p", "1.5"], "top_p is 1.5"),
        (["--seed", "-3"], "seed is -3"),
        (["--max-new-tokens", "-1"], "expected a whole number from 0 up"),
        (["--arithmetic", "float8"], "float8"),
        (["--nonsense"], "--nonsense: not known here; see  minikv "),
        (["--raw", "--chat"], "--raw"),
        (["there", "--raw"], "there: not known here (a text of several words needs quotes); see"),
    ],
)
def test_a_wrong_parameter_is_refused_in_one_line(flags, said, refused, tiny):
    assert said in refused("generate", "Hello", "--model", tiny, *flags)
    if "--raw" not in flags:
        assert said in refused("chat", "--model", tiny, *flags)


def test_a_wrong_prompt_is_refused_in_one_line(refused, tiny):
    assert "empty" in refused("generate", "", "--model", tiny)
    assert "256" in refused("generate", "word " * 400, "--model", tiny)
    assert "surrogate" in refused("generate", "caf\udce9", "--model", tiny)
    assert "PROMPT" in refused("generate", "--model", tiny)


def test_a_token_outside_the_vocabulary_is_refused_in_one_line(refused, folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    added = dict(tokenizer["added_tokens"][0], id=320, content="<|more|>")
    tokenizer["added_tokens"].append(added)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "token id 320 " in refused("generate", "a <|more|> b", "--model", folder)


def test_a_wrong_name_is_refused_in_one_line(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIKV_HOME", str(tmp_path))
    for argv in (["generate", "Hello", "--model"], ["chat", "--model"], ["inspect"], ["fetch"]):
        said = refused(*argv, "smollm2-135m-instrct")
        assert "did you mean smollm2-135m-instruct" in said
    assert "minikv fetch smollm2-135m" in refused("inspect", "smollm2-135m")
    assert "no-such-folder" in refused("inspect", tmp_path / "no-such-folder")
    assert "dance" in refused("dance")
    assert "did you mean generate?" in refused("genrate", "Hello")
    assert contents(tmp_path) == {}


def test_a_chat_without_a_template_is_refused_before_it_asks(refused, folder):
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "template" in refused("chat", "--model", folder)
    assert "template" in refused("generate", "--chat", "Hello", "--model", folder)


def test_a_missing_extra_is_named(refused, tiny, monkeypatch):
    for module in ("jinja2", "jinja2.sandbox"):
        monkeypatch.setitem(sys.modules, module, None)
    said = refused("chat", "--model", tiny)
    assert "pip install" in said
    assert "the extra minikv[chat]" in said
