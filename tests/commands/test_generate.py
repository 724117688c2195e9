"""``minikv generate``: what it prints."""

from __future__ import annotations

import io
import json
import shutil
import sys

import pytest

import minikv
from minikv import progress
from minikv.completion import likeliest, log_probability


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


@pytest.fixture
def thinking(tiny, tmp_path):
    """The toy model with a template that thinks unless it is told not to."""
    folder = tmp_path / "thinking"
    shutil.copytree(tiny, folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["chat_template"] = (
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if enable_thinking is not defined or enable_thinking %} hmm {{ mood }}{% endif %}"
    )
    path.write_text(json.dumps(settings), encoding="utf-8")
    return folder


def test_template_variables_reach_the_template(run, thinking):
    tokenizer = minikv.load(thinking).tokenizer
    argv = ["generate", "Hello", "--chat", "--json", "--max-new-tokens", 1, "--model", thinking]
    for flags, spelled in (
        ([], "Hello hmm "),
        (["--template", "enable_thinking=false"], "Hello"),
        (["--template", "enable_thinking=true", "--template", "mood=well"], "Hello hmm well"),
    ):
        figures = json.loads(run(*argv, *flags)[1])
        assert figures["prompt_tokens"] == len(tokenizer.encode(spelled, add_special=False)), flags
    out = run("chat", "--help")[1]
    assert "--template NAME=VALUE" in out


def test_template_variables_that_cannot_be_meant_are_refused(refused, thinking):
    argv = ["generate", "Hello", "--model", thinking]
    assert "it goes with --chat" in refused(*argv, "--template", "enable_thinking=false")
    assert "expected NAME=VALUE" in refused(*argv, "--chat", "--template", "enable_thinking")


def test_the_first_space_of_a_continuation_is_kept(run, tiny, tmp_path):
    """A tokenizer like Llama's puts a space before a text's first word and drops it in decoding."""
    folder = tmp_path / "llama"
    shutil.copytree(tiny, folder)
    path = folder / "tokenizer.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = {"<unk>": 0} | {f"▁w{number}": number for number in range(1, 97)}
    settings["model"] = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}
    settings["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": "always",
    }
    settings["decoder"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}
    settings["normalizer"] = None
    settings["post_processor"] = None
    settings["added_tokens"] = []
    path.write_text(json.dumps(settings), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    _, out, _ = run("generate", "w3", "--model", folder, "--max-new-tokens", 3)
    assert out.startswith("w3 ")
    figures = json.loads(
        run("generate", "w3", "--model", folder, "--max-new-tokens", 3, "--json")[1]
    )
    assert figures["text"].startswith(" ")
    assert out == "w3" + figures["text"] + "\n"


def test_a_stop_word_ends_the_text_and_is_not_printed(run, tiny):
    argv = ["generate", "Hello there", "--model", tiny, "--max-new-tokens", 12]
    whole = run(*argv)[1]
    word = whole[len("Hello there") + 3 :][:2]
    code, out, err = run(*argv, "--stop", "never said", "--stop", word)
    assert code == 0
    assert out == whole[: whole.index(word)] + "\n"
    assert "stop string" in err
    figures = json.loads(run(*argv, "--stop", word, "--json")[1])
    assert figures["text"] == out.removeprefix("Hello there").removesuffix("\n")
    assert figures["ended_by"] == "stop string"


def test_a_stop_word_that_never_comes_changes_nothing(run, tiny):
    argv = ["generate", "Hello there", "--model", tiny, "--max-new-tokens", 12]
    whole = run(*argv)[1]
    assert run(*argv, "--stop", whole[-4:-1] + "never said")[1] == whole


def test_prompts_of_a_file_are_continued_as_each_alone(run, tiny, tmp_path):
    texts = ["Hello there", "a", "The residual stream"]
    lines = tmp_path / "prompts.txt"
    lines.write_text("\n".join([*texts[:2], "", texts[2]]) + "\n", encoding="utf-8")
    rows = tmp_path / "prompts.jsonl"
    rows.write_text("\n".join(json.dumps({"prompt": text}) for text in texts), encoding="utf-8")
    settings = ["--model", tiny, "--arithmetic", "exact", "--max-new-tokens", 6]
    for path in (lines, rows):
        argv = ["generate", "--prompts", path, *settings, "--cache", "residual@4"]
        code, out, _ = run(*argv)
        found = [json.loads(line) for line in out.splitlines()]
        assert code == 0
        assert [row["prompt"] for row in found] == texts
        for text, row in zip(texts, found, strict=True):
            assert row["ids"] == json.loads(run("generate", text, *settings, "--json")[1])["ids"]
            assert len(row["log_probs"]) == len(row["ids"])
            assert row["top"] == []
    streamed = [json.loads(line) for line in run(*argv, "--stream")[1].splitlines()]
    assert sorted(streamed, key=lambda row: row["number"]) == found
    told = [json.loads(line) for line in run(*argv, "--logprobs", 3)[1].splitlines()]
    for row, plain in zip(told, found, strict=True):
        assert row["log_probs"] == plain["log_probs"]
        best = [top[0]["id"] for top in row["top"]]
        assert best == row["ids"]  # greedy
        assert {len(top) for top in row["top"]} == {3}


def test_log_probabilities_are_those_of_the_library(run, tiny):
    model = minikv.load(tiny, "exact")
    argv = ["generate", "Hello there", "--model", tiny, "--max-new-tokens", 3]
    drawn = ["--arithmetic", "exact", "--temperature", 2, "--seed", 5]
    plain = json.loads(run(*argv, *drawn, "--json")[1])
    told = json.loads(run(*argv, *drawn, "--json", "--logprobs", 2)[1])
    assert told["ids"] == plain["ids"]
    assert plain.keys() == told.keys() - {"log_probs", "top"}
    rows = model.logits(model.tokenizer.encode("Hello there") + told["ids"])[-4:-1]
    for row, token, own, top in zip(rows, told["ids"], told["log_probs"], told["top"], strict=True):
        assert own == log_probability(row, token)
        assert [(each["id"], each["log_prob"]) for each in top] == likeliest(row, 2)
        assert [each["text"] for each in top] == [
            model.tokenizer.decode([each["id"]]) for each in top
        ]
    assert told["ids"] != [top[0]["id"] for top in told["top"]], "the draw shows nothing"


def test_log_probabilities_are_printed_below_the_text(run, tiny):
    argv = ["generate", "Hello there", "--model", tiny, "--max-new-tokens", 3]
    plain = run(*argv)[1]
    told = json.loads(run(*argv, "--logprobs", 2, "--json")[1])
    out = run(*argv, "--logprobs", 2)[1]
    assert out.startswith(plain + "\ntoken ")
    rows = out.removeprefix(plain).splitlines()[2:]
    for row, own, top in zip(rows, told["log_probs"], told["top"], strict=True):
        assert f"  {own:.3f}  " in row
        assert row.endswith(f"{top[1]['log_prob']:.3f}")
    assert "likeliest" in run(*argv, "--logprobs", 0)[1]


def test_a_streamed_answer_is_a_line_for_each_token_and_then_the_figures(run, tiny):
    argv = ["generate", "Hello there", "--model", tiny, "--max-new-tokens", 12, "--logprobs", 1]
    whole = json.loads(run(*argv, "--json")[1])
    lines = [json.loads(line) for line in run(*argv, "--json", "--stream")[1].splitlines()]
    figures = lines.pop()
    assert "".join(line["text"] for line in lines) == figures["text"] == whole["text"]
    assert [line["id"] for line in lines if line["id"] is not None] == whole["ids"]
    assert [line["top"] for line in lines if "top" in line] == whole["top"]
    assert figures.keys() == whole.keys()


def test_a_stop_word_is_not_streamed(run, tiny):
    argv = ["generate", "Hello there", "--model", tiny, "--max-new-tokens", 12, "--json"]
    word = json.loads(run(*argv)[1])["text"][3:5]
    out = run(*argv, "--stop", word, "--stream")[1]
    lines = [json.loads(line) for line in out.splitlines()]
    assert "".join(line["text"] for line in lines[:-1]) == lines[-1]["text"]
    assert word not in lines[-1]["text"]


def test_a_percentage_is_told_where_the_prompt_takes_long(run, tiny, monkeypatch):
    argv = ["generate", "Hello there", "--model", tiny, "--max-new-tokens", 3]
    plain = run(*argv)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    out, err = run(*argv)[1:]
    assert out == plain[1]
    assert "\rreading 7 tokens ...  33%\rreading 7 tokens ...  67%\r\033[K" in err
    assert "%" not in plain[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["Hello", "--stream"], "it goes with --json"),
        (["Hello", "--logprobs", "-1"], "from 0 up"),
        ([], "either a PROMPT, or --prompts FILE"),
        (["Hello", "--prompts", "x"], "either a PROMPT, or --prompts FILE"),
        (["--prompts", "no-such-file"], "no-such-file"),
        (["--prompts", "x", "--chat"], "neither --chat"),
        (["Hello", "--system", "be short"], "--system is a message"),
        (["Hello", "--stop", ""], "not empty"),
    ],
)
def test_what_generate_cannot_take_together_is_refused(run, tiny, words, said):
    code, _, err = run("generate", *words, "--model", tiny)
    assert code == 2
    assert said in err


@pytest.mark.parametrize(("name", "text"), [("a.txt", "\n \n"), ("a.jsonl", '{"text": "x"}')])
def test_a_file_without_prompts_is_refused(run, tiny, tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    code, _, err = run("generate", "--prompts", tmp_path / name, "--model", tiny)
    assert code == 2
    assert name in err


def test_a_system_message_changes_the_answer(run, tiny):
    pytest.importorskip("jinja2", reason="needs the extra `chat`")
    argv = ["generate", "Hi", "--chat", "--model", tiny, "--max-new-tokens", 8, "--json"]
    plain, told = (json.loads(run(*argv, *more)[1]) for more in ([], ["--system", "be short"]))
    assert told["prompt_tokens"] > plain["prompt_tokens"]
