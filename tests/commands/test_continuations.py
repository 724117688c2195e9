"""What the commands read and print of texts: first spaces, template variables, GGUF files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from gguf_writer import write_gguf
from llama_tokenizer import llama_tokenizer

import minikv
from minikv.weights import load_tensors, save_folder


@pytest.fixture
def capital(tmp_path: Path) -> Path:
    """A model that says " Paris" after " is", with a tokenizer that drops a text's first space."""
    backend = llama_tokenizer().backend
    ids = {word: backend.token_to_id(word) for word in ("▁is", "▁Paris", "</s>")}
    config = minikv.tiny_config(
        vocab_size=backend.get_vocab_size(), tie_word_embeddings=False, eos_token_id=ids["</s>"]
    )
    tensors = {name: tensor.copy() for name, tensor in minikv.random_tensors(config, 0).items()}
    for name in tensors:
        if any(part in name for part in ("o_proj", "down_proj", "embed", "lm_head")):
            tensors[name][:] = 0
    for number, (here, there) in enumerate((("▁is", "▁Paris"), ("▁Paris", "</s>"))):
        tensors["model.embed_tokens.weight"][ids[here], number] = 1
        tensors["lm_head.weight"][ids[there], number] = 1
    files = {"tokenizer.json": backend.to_str(), "tokenizer_config.json": "{}"}
    return save_folder(tmp_path / "capital", config, tensors, files)


def test_the_first_space_of_a_continuation_is_printed(run, capital):
    code, out, _ = run("generate", "The is", "--model", capital)
    assert (code, out) == (0, "The is Paris\n")
    figures = json.loads(run("generate", "The is", "--model", capital, "--json")[1])
    assert figures["text"] == " Paris"


@pytest.fixture
def thinking(tiny: Path, tmp_path: Path) -> Path:
    """The toy model with a template that asks for a variable, as Qwen 3's does."""
    folder = tmp_path / "thinking"
    shutil.copytree(tiny, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = (
        "{{ messages[-1].content }}{% if enable_thinking is false %}!{% endif %}{{ tone }}"
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "Hello"),
        (("--template", "enable_thinking=false"), "Hello!"),
        (("--template", "enable_thinking=true"), "Hello"),
        (("--template", "enable_thinking=false", "--template", "tone=kind"), "Hello!kind"),
    ],
)
def test_variables_of_the_template_are_given_on_the_command_line(run, thinking, options, text):
    model = minikv.load(thinking)
    ids = model.tokenizer.encode(text, add_special=False)
    expected = list(model.generate(ids, max_new_tokens=4, stop=model.tokenizer.eos_ids))
    argv = ["generate", "Hello", "--chat", "--model", thinking, "--max-new-tokens", 4, "--json"]
    assert json.loads(run(*argv, *options)[1])["ids"] == expected


@pytest.mark.parametrize("given", ["enable_thinking", "=false", "a b=1", "messages=1", "x="])
def test_a_variable_that_is_none_is_refused(refused, thinking, given):
    argv = ["generate", "Hello", "--chat", "--model", thinking]
    assert "expected NAME=VALUE" in refused(*argv, "--template", given)


def test_a_gguf_file_is_a_model(run, tiny, tmp_path, monkeypatch):
    pytest.importorskip("gguf", reason="needs the extra `fetch`")
    monkeypatch.setenv("MINIKV_HOME", str(tmp_path / "home"))
    config = minikv.ModelConfig.from_file(tiny / "config.json")
    spec = json.loads((tiny / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].get)
    words = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(tokens) - 3),
        "tokenizer.ggml.merges": spec["model"]["merges"],
        "tokenizer.ggml.eos_token_id": 2,
    }
    path = write_gguf(tmp_path / "toy.gguf", config, load_tensors(tiny, config), words)
    argv = ["--max-new-tokens", 5, "--json"]
    ours = json.loads(run("generate", "Hello", "--model", path, *argv)[1])
    theirs = json.loads(run("generate", "Hello", "--model", tiny, *argv)[1])
    assert ours["ids"] == theirs["ids"]
