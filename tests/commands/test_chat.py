"""``minikv chat``: turns, and what is said about them."""

from __future__ import annotations

import io
import json
import sys

import minikv


def chat(monkeypatch, run, lines: list[str], *argv: object) -> tuple[list[dict], str]:
    """Answers of ``minikv chat --json`` to lines on standard input, and standard error."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line + "\n" for line in lines)))
    code, out, err = run("chat", "--json", "--arithmetic", "exact", *argv)
    assert code == 0
    return [json.loads(line) for line in out.splitlines()], err


def test_chat_answers_as_from_scratch_but_reads_only_what_is_new(run, tiny, monkeypatch):
    asked = ["Hello", "and then?", "why?"]
    argv = ["--model", tiny, "--max-new-tokens", 9, "--system", "Be brief."]
    turns, err = chat(monkeypatch, run, asked, *argv)
    assert (len(turns), err) == (3, "")
    model = minikv.load(tiny, arithmetic="exact")
    text, ids, held = "<|im_start|>system\nBe brief.<|im_end|>\n", [], 0
    for line, turn in zip(asked, turns, strict=True):
        text += f"<|im_start|>user\n{line}<|im_end|>\n<|im_start|>assistant\n"
        ids += model.tokenizer.encode(text, add_special=False)
        assert turn["ids"] == list(model.generate(ids, max_new_tokens=9))
        assert turn["prompt_tokens"] == len(ids) - held
        ids += turn["ids"]
        held = turn["cache_tokens"]
        assert held == len(ids) - 1  # the last token of an answer is read with the next line
        text = "\n" if turn["ended_by"] == "end of text" else "<|im_end|>\n"


def test_chat_reads_all_again_where_the_template_rewrites_earlier_turns(run, folder, monkeypatch):
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{{ messages[-1]['content'] }}<|im_end|>"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    argv = ["--model", folder, "--max-new-tokens", 4]
    turns, _ = chat(monkeypatch, run, ["Hello", "Good day"], *argv)
    model = minikv.load(folder, arithmetic="exact")
    ids = model.tokenizer.encode("Good day<|im_end|>", add_special=False)
    assert turns[1]["prompt_tokens"] == len(ids)
    assert turns[1]["ids"] == list(model.generate(ids, max_new_tokens=4))


def test_chat_says_that_the_context_is_full_and_starts_again(run, tiny, monkeypatch):
    lines = ["Hello", "word " * 400, "", "/new", "Hello"]
    turns, err = chat(monkeypatch, run, lines, "--model", tiny, "--max-new-tokens", 5)
    assert len(turns) == 2
    assert turns[0]["ids"] == turns[1]["ids"]
    assert turns[0]["prompt_tokens"] == turns[1]["prompt_tokens"]
    assert "the context is 256" in err
    assert err.count("\n") == 1


def test_chat_does_not_put_a_mistyped_command_to_the_model(run, tiny, monkeypatch):
    lines = ["/help ", "/dev/null is what?"]
    turns, err = chat(monkeypatch, run, lines, "--model", tiny, "--max-new-tokens", 5)
    assert [turn["prompt"] for turn in turns] == lines[1:]
    assert err == "minikv: /help is no command; /new is, Ctrl-D leaves\n"
