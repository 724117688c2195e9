"""``minikv generate``: what it prints."""

from __future__ import annotations

import io
import json
import sys

import minikv


def test_generate_prints_the_prompt_with_what_the_library_generates(run, tiny):
    model = minikv.load(tiny)
    ids = list(model.generate(model.tokenizer.encode("Hello there"), max_new_tokens=12))
    code, out, err = run("generate", "Hello there", "--model", tiny, "--max-new-tokens", 12)
    assert code == 0
    assert out == "Hello there" + model.tokenizer.decode(ids) + "\n"
    for figure in ("prompt tokens in", "12 new at", "length reached; peak", "cache"):
        assert figure in err
    assert err.count("\n") == 1


def test_generate_json_holds_the_figures_and_nothing_else_is_printed(run, tiny):
    code, out, err = run("generate", "Hello", "--model", tiny, "--max-new-tokens", 5, "--json")
    figures = json.loads(out)
    assert (code, err) == (0, "")
    model = minikv.load(tiny)
    prompt = model.tokenizer.encode("Hello")
    assert figures["ids"] == list(model.generate(prompt, max_new_tokens=5))
    assert figures["text"] == model.tokenizer.decode(figures["ids"])
    assert figures["prompt_tokens"] == len(prompt)
    assert figures["new_tokens"] == 5
    assert figures["cache_tokens"] == len(prompt) + 4  # the last token is never fed back
    cache = model.new_cache()
    list(model.generate(prompt, max_new_tokens=5, cache=cache))
    assert figures["cache_bytes"] == cache.nbytes
    assert figures["peak_memory_bytes"] > 1e6
    assert figures["prefill_seconds"] > 0
    assert figures["seconds_per_token"] > 0


def test_generate_passes_every_sampling_parameter_on(run, tiny):
    model = minikv.load(tiny, arithmetic="exact")
    prompt = model.tokenizer.encode("Hello")
    settings = {"max_new_tokens": 20, "temperature": 1.5, "top_k": 40, "top_p": 0.9, "seed": 7}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    argv = ["generate", "Hello", "--model", tiny, "--arithmetic", "exact", "--json"]
    expected = list(model.generate(prompt, **settings))
    assert json.loads(run(*argv, *flags)[1])["ids"] == expected
    for name, other in (("temperature", 0.7), ("top_k", 3), ("top_p", 0.3), ("seed", 8)):
        changed = list(model.generate(prompt, **(settings | {name: other})))
        assert changed != expected, f"{name} does not matter here, so the test shows nothing"


def test_generate_chat_answers_in_the_models_template(run, tiny):
    model = minikv.load(tiny)
    text = model.tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}])
    ids = model.tokenizer.encode(text, add_special=False)
    expected = list(model.generate(ids, max_new_tokens=6))
    argv = ["generate", "Hello", "--model", tiny, "--max-new-tokens", 6, "--chat"]
    assert json.loads(run(*argv, "--json")[1])["ids"] == expected
    assert run(*argv)[1] == model.tokenizer.decode(expected) + "\n"


def test_generate_reads_the_prompt_from_standard_input(run, tiny, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello"))
    code, out, _ = run("generate", "-", "--model", tiny, "--max-new-tokens", 2)
    assert code == 0
    assert out.startswith("Hello")


def test_generate_ends_where_the_context_is_full(run, tiny):
    argv = ["generate", "Hello", "--model", tiny, "--max-new-tokens", 1000, "--json"]
    figures = json.loads(run(*argv)[1])
    assert figures["ended_by"] == "context full"
    assert figures["prompt_tokens"] + figures["new_tokens"] == 256
