"""The checks of chapter 10 accept the solutions and explain each mistake."""

from __future__ import annotations

import numpy as np
import pytest
from exercises import e10
from solutions import s10

SOLUTIONS = {name: getattr(s10, name) for name in ("verdict", "leaks", "mask", "smallest")}


def shorter_text(logits, ids, cut):
    return bool((logits(ids)[:cut] != logits(ids[:cut])).any())


def close_enough(logits, ids, cut):
    changed = ids[:cut] + [(token + 1) % 10 for token in ids[cut:]]
    return not np.allclose(logits(ids)[:cut], logits(changed)[:cut])


def once(logits, ids, cut):
    changed = ids[:cut] + [(token + 2) % 10 for token in ids[cut:]]
    return bool((logits(ids)[:cut] != logits(changed)[:cut]).any())


MISTAKES = [
    ("verdict", lambda narrow, wide: "rounding" if narrow < 1e-5 else "bug", "same bits"),
    ("verdict", lambda narrow, wide: "bug" if wide > 1e-15 else s10.verdict(narrow, 0), "rounding"),
    ("verdict", lambda narrow, wide: None, "returned None"),
    ("leaks", shorter_text, "did you keep it?"),
    ("leaks", close_enough, "moves every row is not found"),
    ("leaks", once, "moves one bit of one row is not found"),
    ("mask", lambda old, tokens, window: s10.mask(0, tokens, window), "has shape"),
    ("mask", lambda old, tokens, window: s10.mask(old, tokens), "does not see key"),
    (
        "mask",
        lambda old, tokens, window: np.tril(np.ones((tokens, old + tokens), dtype=bool)),
        "new token 0 sees key 1",
    ),
    ("smallest", lambda fails, ids: ids, "can be left out"),
    ("smallest", lambda fails, ids: [], "does not show it"),
    ("smallest", lambda fails, ids: [fails(ids) for _ in range(501)], "expected 500 at most"),
]


@pytest.mark.parametrize("name", SOLUTIONS)
def test_the_solution_is_accepted(name):
    assert getattr(e10, f"check_{name}")(SOLUTIONS[name])


@pytest.mark.parametrize(("name", "mistake", "words"), MISTAKES)
def test_a_mistake_is_explained(name, mistake, words, capsys):
    assert not getattr(e10, f"check_{name}")(mistake)
    said = capsys.readouterr().out
    assert said.startswith("Not yet: ")
    assert words in said, said
