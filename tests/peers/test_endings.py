"""Scores of endings beside transformers', from the text of the file to the sum.

A log-likelihood is a logit less the logarithm of a sum, which moves no more than the logits do; so
a token's may differ by twice the largest difference in its row of logits, and by the roundings of
both. The difference of logits itself is bounded as in `test_families.py`.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from layerwise import in_float64, peer_modules

import minikv
from minikv.experiments.score import SAMPLE, encoded, read_questions, score
from minikv.rotary import rope_frequencies

torch, transformers = peer_modules()
pytestmark = pytest.mark.peers

U = 2.0**-53
LOGITS = 1e-9  # in float64


def usual_texts(item: dict) -> tuple[str, list[str]]:
    """Context and endings as evaluations of this set are usually written, by plain replacing."""

    def clean(text: str) -> str:
        text = text.strip().replace(" [title]", ". ")
        while "[" in text:
            before, _, rest = text.partition("[")
            text = before + rest.partition("]")[2]
        return text.replace("  ", " ").strip()

    context = f"{item['activity_label']}: {item['ctx_a']} {item['ctx_b'].capitalize()}"
    return clean(context), [clean(text) for text in item["endings"]]


@pytest.fixture(scope="module")
def peers(tiny):
    ours = minikv.load(tiny, "float64")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tiny, dtype="float32").eval()
    theirs = in_float64(theirs, rope_frequencies(ours.config))
    reader = transformers.AutoTokenizer.from_pretrained(tiny)
    return ours, theirs, reader


def roundings(logits: np.ndarray) -> float:
    """What one side's log-likelihood of a token may be off by, in float64: see the docstring.

    The shift, the exponentials, a sum of V of them, a logarithm and a difference, none larger than
    the spread of the logits and log V.
    """
    spread = float(np.ptp(logits)) + np.log(len(logits))
    return (len(logits) + 8) * U * (1 + spread)


@pytest.mark.parametrize("number", range(10))
def test_scores_of_our_questions_are_transformers(peers, number):
    ours, theirs, reader = peers
    question = read_questions(str(SAMPLE))[number]
    line = SAMPLE.read_text(encoding="utf-8").splitlines()[number]
    context, endings = usual_texts(json.loads(line))
    assert (question.context, list(question.endings)) == (context, endings)
    found = score(ours, question, ours.new_cache)
    before = reader(context)["input_ids"]
    for text, ids, total in zip(endings, encoded(ours, question)[1], found.sums, strict=True):
        whole = reader(f"{context} {text}")["input_ids"]
        assert whole[len(before) :] == ids
        with torch.no_grad():
            logits = theirs(torch.tensor([[*before, *ids]])).logits[0][len(before) - 1 : -1]
        expected = float(torch.log_softmax(logits, -1)[range(len(ids)), ids].sum())
        rows = ours.logits([*before, *ids])[len(before) - 1 : -1]
        apart = np.abs(rows - logits.numpy()).max(axis=1)  # (ids,)
        assert apart.max() <= LOGITS
        each = [2 * gap + 2 * roundings(row) for gap, row in zip(apart, rows, strict=True)]
        bound = sum(each) + len(ids) * U * (abs(total) + abs(expected))
        assert abs(total - expected) <= bound


def test_another_ending_is_further_away_than_the_bound(peers):
    """The inequality tells endings apart: the control."""
    ours, _, _ = peers
    question = read_questions(str(SAMPLE))[0]
    sums = np.sort(score(ours, question, ours.new_cache).sums)
    assert np.diff(sums).min() > 1e-3
