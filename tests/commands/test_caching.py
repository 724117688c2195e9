"""``--cache`` and what belongs to it, in ``generate`` and ``chat``."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

import minikv
from minikv import cli

TINY = str(Path(__file__).parents[1] / "fixtures" / "tiny")
GENERATE = ["generate", "--model", TINY, "--arithmetic", "exact", "--max-new-tokens", "12"]


def figures(capsys, *options: str) -> dict:
    """What ``generate --json`` says."""
    assert cli.main([*GENERATE, *options, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "options",
    [
        ("--cache", "none"),
        ("--cache", "residual", "--budget", "4"),
        ("--cache", "residual", "--budget", "0"),
        ("--cache", "residual:every@4"),
        ("--cache", "residual", "--budget", "4", "--checkpoints", "every"),
        ("--cache", "residual@4", "--checkpoints", "tokens"),
        ("--cache", "residual@4", "--parameter", "forget=true"),
    ],
)
def test_what_loses_nothing_writes_what_the_full_cache_writes(capsys, options):
    full = figures(capsys, "Hello there, world")
    other = figures(capsys, "Hello there, world", *options)
    assert other["ids"] == full["ids"]
    assert other["full_cache_bytes"] == full["cache_bytes"] == full["full_cache_bytes"]
    assert other["cache_bytes"] != full["cache_bytes"]


def test_a_window_writes_something_else(capsys):
    full = figures(capsys, "Hello there, world")
    window = figures(capsys, "Hello there, world", "--cache", "window", "--budget", "3")
    assert window["ids"] != full["ids"]
    assert window["cache_bytes"] < full["cache_bytes"]


def test_a_parameter_reaches_the_policy(capsys):
    text = ("Hello there, world", "--cache", "streaming_llm", "--budget", "6")
    few = figures(capsys, *text, "--parameter", "sinks=0")
    many = figures(capsys, *text, "--parameter", "sinks=5")
    assert few["ids"] != many["ids"]


def test_the_status_line_names_the_full_caches_bytes(capsys):
    assert cli.main([*GENERATE, "Hello there", "--cache", "window@3"]) == 0
    assert "cache 1.2 kB (18 tokens; the full cache: 6.9 kB)" in capsys.readouterr().err
    assert cli.main([*GENERATE, "Hello there"]) == 0
    assert "full cache" not in capsys.readouterr().err


@pytest.mark.parametrize("policy", [(), ("--cache", "residual@3")])
def test_a_saved_cache_goes_on_as_one_text(capsys, tmp_path, policy):
    saved = str(tmp_path / "cache")
    begun = figures(capsys, "Hello there", "--max-new-tokens", "4", *policy, "--save-cache", saved)
    again = figures(capsys, "!", "--max-new-tokens", "3", *policy, "--load-cache", saved)
    model = minikv.load(TINY, "exact")
    encode = model.tokenizer.encode
    text = encode("Hello there") + begun["ids"] + encode("!", add_special=False)
    assert again["ids"] == list(model.generate(text, 3))
    assert again["cache_tokens"] == len(text) + 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--cache", "windw"), "--cache windw: unknown, choose from full"),
        (("--budget", "3"), "--budget 3: the policy 'full' has no budget"),
        (("--cache", "none", "--budget", "0"), "--budget 0: the policy 'none' has no budget"),
        (("--cache", "window", "--budget", "-3"), "expected a whole number from 0 up"),
        (("--cache", "window@3", "--budget", "3"), "give one budget"),
        (("--cache", "window", "--checkpoints", "every"), "only --cache residual"),
        (("--cache", "residual:every", "--checkpoints", "5"), "give the checkpoints once"),
        (("--cache", "window", "--parameter", "size=3"), "'size'"),
        (("--load-cache", "no-such-file"), "no-such-file is not a saved cache"),
        (("--save-cache", "no/such/folder"), "its folder does not exist"),
        (("--load-cache", "x", "--chat"), "--load-cache goes on with a text"),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_line(capsys, options, said):
    assert cli.main([*GENERATE, "Hello", *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def talk(monkeypatch, capsys, lines: str, *options: str) -> list[dict]:
    """What ``chat --json`` answers to these lines."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    settings = ["--model", TINY, "--arithmetic", "exact", "--max-new-tokens", "6", "--json"]
    assert cli.main(["chat", *settings, *options]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_saved_conversation_goes_on(monkeypatch, capsys, tmp_path):
    pytest.importorskip("jinja2", reason="needs the extra `chat`")
    saved = str(tmp_path / "talk")
    whole = talk(monkeypatch, capsys, "one\ntwo\n")
    first = talk(monkeypatch, capsys, "one\n", "--save-cache", saved)
    second = talk(monkeypatch, capsys, "two\n", "--load-cache", saved)
    assert [turn["ids"] for turn in first + second] == [turn["ids"] for turn in whole]
    assert second[0]["prompt_tokens"] == whole[1]["prompt_tokens"]


def test_a_cache_without_a_conversation_is_no_chat(monkeypatch, capsys, tmp_path):
    pytest.importorskip("jinja2", reason="needs the extra `chat`")
    saved = str(tmp_path / "cache")
    figures(capsys, "Hello", "--save-cache", saved)
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n"))
    chat = ["chat", "--model", TINY, "--arithmetic", "exact", "--load-cache", saved]
    assert cli.main(chat) == 2
    assert "holds a cache, but no conversation" in capsys.readouterr().err
    assert cli.main([*chat, "--system", "be short"]) == 2
    assert "has its --system already" in capsys.readouterr().err


def test_chat_takes_a_policy(monkeypatch, capsys):
    pytest.importorskip("jinja2", reason="needs the extra `chat`")
    full = talk(monkeypatch, capsys, "one\ntwo\n")
    residual = talk(monkeypatch, capsys, "one\ntwo\n", "--cache", "residual:every@3")
    assert [turn["ids"] for turn in residual] == [turn["ids"] for turn in full]
    assert residual[-1]["cache_bytes"] != full[-1]["cache_bytes"]
