"""``minikv chat``: turns, and what is said about them."""

from __future__ import annotations

import io
import json
import sys

import pytest

import minikv
from minikv.commands import slash
from minikv.generation import penalised


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


def test_a_penalty_knows_the_tokens_of_its_turn_and_not_those_before(run, tiny, monkeypatch):
    known: list[int] = []

    def noted(logits, said, penalty):
        known.append(len(said))
        return penalised(logits, said, penalty)

    monkeypatch.setattr("minikv.generation.penalised", noted)
    argv = ["--model", tiny, "--max-new-tokens", 3, "--repetition-penalty", 1.5]
    turns, _ = chat(monkeypatch, run, ["Hello", "and then?"], *argv)
    expected = [turn["prompt_tokens"] + made for turn in turns for made in range(len(turn["ids"]))]
    assert known == expected
    assert max(known) < turns[1]["cache_tokens"]


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
    lines = ["/hlep ", "/dev/null is what?"]
    turns, err = chat(monkeypatch, run, lines, "--model", tiny, "--max-new-tokens", 5)
    assert [turn["prompt"] for turn in turns] == lines[1:]
    assert err == "minikv: /hlep is no command, see /help\n"


def test_help_has_a_line_for_each_command(run, tiny, monkeypatch):
    _, err = chat(monkeypatch, run, ["/help"], "--model", tiny)
    lines = err.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [f"/{name}" for name in slash.COMMANDS]
    assert all(len(line.split()) > 1 for line in lines)
    assert max(map(len, lines)) <= 80


def test_retry_puts_the_question_again_and_undo_takes_it_back(run, tiny, monkeypatch):
    argv = ["--model", tiny, "--max-new-tokens", 6]
    lines = ["one", "two", "/retry", "/undo", "three"]
    turns, err = chat(monkeypatch, run, lines, *argv)
    plain, _ = chat(monkeypatch, run, ["one", "three"], *argv)
    assert [turn["prompt"] for turn in turns] == ["one", "two", "two", "three"]
    assert turns[2]["ids"] == turns[1]["ids"]  # greedy
    # Nothing is read twice: the last token of the answer before was read with the first "two".
    assert turns[2]["prompt_tokens"] == turns[1]["prompt_tokens"] - 1
    assert turns[3]["ids"] == plain[1]["ids"]
    assert turns[3]["prompt_tokens"] == plain[1]["prompt_tokens"] - 1
    assert err == "taken back: two\n"


def test_a_policy_that_evicts_reads_all_again_after_undo(run, tiny, monkeypatch):
    argv = ["--model", tiny, "--max-new-tokens", 6, "--cache", "window@12"]
    turns, _ = chat(monkeypatch, run, ["one", "two", "/undo", "two"], *argv)
    assert turns[2]["prompt_tokens"] > turns[1]["prompt_tokens"]


def test_undo_before_anything_was_asked_is_refused(run, tiny, monkeypatch):
    _, err = chat(monkeypatch, run, ["/undo", "/retry"], "--model", tiny)
    assert err == "minikv: nothing was asked yet\n" * 2


def test_set_changes_how_it_answers(run, tiny, monkeypatch):
    lines = ["one", "/set max_new_tokens 3", "/new", "one", "/set"]
    turns, err = chat(monkeypatch, run, lines, "--model", tiny, "--max-new-tokens", 6)
    assert turns[1]["ids"] == turns[0]["ids"][:3]
    assert err.startswith("max_new_tokens 3, temperature 0.0, top_k None")
    lines = ["/set temperature 2", "/set seed 5", "one", "/set seed 6", "/new", "one"]
    first, second = chat(monkeypatch, run, lines, "--model", tiny)[0]
    assert first["ids"] != second["ids"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/set tempo 3", "expected one of max_new_tokens"),
        ("/set temperature warm", "expected a number, or none"),
        ("/set temperature -1", "temperature is -1"),
        ("/set top_k 5", "temperature 0 takes the likeliest"),
        ("/set max_new_tokens 0", "from 1 up"),
        ("/save", "needs the name of a file"),
        ("/load no-such-file", "no such file"),
        ("/save no/such/folder", "No such file or directory"),
    ],
)
def test_a_wrong_command_is_told_and_the_chat_goes_on(run, tiny, monkeypatch, line, said):
    argv = ["--model", tiny, "--max-new-tokens", 4]
    turns, err = chat(monkeypatch, run, ["one", line, "two"], *argv)
    plain, _ = chat(monkeypatch, run, ["one", "two"], *argv)
    assert said in err
    assert err.count("\n") == 1
    assert [turn["ids"] for turn in turns] == [turn["ids"] for turn in plain]


def test_save_and_load_go_on_with_the_conversation(run, tiny, monkeypatch, tmp_path):
    argv = ["--model", tiny, "--max-new-tokens", 5]
    saved = tmp_path / "talk"
    lines = ["one", f"/save {saved}", "two"]
    turns, _ = chat(monkeypatch, run, lines, *argv)
    again, err = chat(monkeypatch, run, [f"/load {saved}", "two", "/undo", "two"], *argv)
    assert again[0]["ids"] == again[1]["ids"] == turns[1]["ids"]
    assert again[0]["prompt_tokens"] == turns[1]["prompt_tokens"]
    assert "2 messages" in err


def test_other_instructions_begin_again(run, tiny, monkeypatch):
    argv = ["--model", tiny, "--max-new-tokens", 5]
    lines = ["one", "/system Be brief.", "one", "/system"]
    turns, err = chat(monkeypatch, run, lines, *argv)
    told, _ = chat(monkeypatch, run, ["one"], *argv, "--system", "Be brief.")
    assert turns[1]["ids"] == told[0]["ids"]
    assert turns[1]["prompt_tokens"] == told[0]["prompt_tokens"] > turns[0]["prompt_tokens"]
    assert err == "Be brief.\n"


def test_bye_leaves_and_stats_count(run, tiny, monkeypatch):
    lines = ["one", "two", "/stats", "/bye", "three"]
    turns, err = chat(monkeypatch, run, lines, "--model", tiny, "--max-new-tokens", 5)
    assert len(turns) == 2
    assert err.startswith("2 answers, 10 tokens at ")
    assert f"({turns[1]['cache_tokens']} tokens; the full cache: " in err


def test_log_probabilities_and_a_stream_are_told_of_each_answer(run, tiny, monkeypatch):
    argv = ["--model", tiny, "--max-new-tokens", 4, "--logprobs", 2]
    turns, _ = chat(monkeypatch, run, ["one", "two"], *argv)
    assert [len(turn["top"]) for turn in turns] == [len(turn["ids"]) for turn in turns]
    assert turns[0]["top"][0][0]["id"] == turns[0]["ids"][0]
    lines, _ = chat(monkeypatch, run, ["one", "two"], *argv, "--stream")
    told = [line for line in lines if "prompt" in line]
    assert [line["ids"] for line in told] == [turn["ids"] for turn in turns]
    streamed = [line["id"] for line in lines if line.get("id") is not None]
    assert streamed == turns[0]["ids"] + turns[1]["ids"]


def test_a_text_of_several_lines_is_one_question(run, tiny, monkeypatch):
    lines = ['"""first', "second", 'third"""', "plain", '"""one line"""', '"""', "x", '"""']
    turns, _ = chat(monkeypatch, run, lines, "--model", tiny, "--max-new-tokens", 2)
    assert [turn["prompt"] for turn in turns] == [
        "first\nsecond\nthird",
        "plain",
        "one line",
        "x",
    ]
