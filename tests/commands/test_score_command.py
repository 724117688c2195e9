"""``minikv score``: texts and endings by cache, and wrong files."""

from __future__ import annotations

import json

import pytest


def scored(run, *argv) -> list[dict]:
    code, out, _ = run("score", *argv, "--json")
    assert code == 0
    return json.loads(out)["rows"]


def test_questions_are_scored_by_cache(run, tiny):
    policies = "full,none,residual:every@4,window@4"
    argv = ["--model", tiny, "--arithmetic", "exact", "--limit", 4, "--policies", policies]
    rows = scored(run, *argv)
    assert [row["policy"] for row in rows] == policies.split(",")
    assert [row["questions"] for row in rows] == [4] * 4
    figures = [{key: row[key] for key in row if key != "policy"} for row in rows]
    assert figures[0] == figures[1] == figures[2]
    code, out, _ = run("score", *argv)
    assert code == 0
    assert out.startswith("policy")


def test_a_text_is_scored_by_cache(run, tiny, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("A sparrow sat on the wall and sang about the rain. " * 3)
    argv = [path, "--model", tiny, "--arithmetic", "exact", "--length", 40]
    full, direct, window = scored(run, *argv, "--policies", "full,residual:every@4,window@4")
    assert full["perplexity"] == direct["perplexity"] != window["perplexity"]
    assert full["tokens"] == 39 * full["pieces"] > 39
    (first,) = scored(run, *argv, "--limit", 1)
    assert first["pieces"] == 1


@pytest.mark.parametrize(
    ("name", "content", "more", "told"),
    [
        ("a.jsonl", '{"ctx": "a", "label": 0}', [], "endings is None"),
        ("a.jsonl", "", ["--length", "9"], "--length cuts a text"),
        ("a.txt", "short", [], "expected at least 512"),
        ("a.txt", "short", ["--policies", "windows@3"], "windows"),
    ],
)
def test_wrong_files_are_refused_in_one_line(refused, tiny, tmp_path, name, content, more, told):
    path = tmp_path / name
    path.write_text(content)
    assert told in refused("score", path, "--model", tiny, *more)


def test_a_file_that_is_not_there_is_refused(refused, tiny):
    assert "no such file" in refused("score", "nowhere.txt", "--model", tiny)
