"""Accuracy on endings: full cache, KV-Direct, and a window that no prompt outgrows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ...experiments import policy_cache
from ...experiments.score import SAMPLE, Scored, accuracy, read_questions, score
from ..claim import Claim, Figures, Finding, Setting, Verdict
from ..six import of_the_paper

WINDOW = 64
CONTROL = 8  # a window that every prompt outgrows
PAPER = {
    "smollm2-135m": 39.4,
    "qwen2.5-0.5b": 41.0,
    "qwen3-0.6b": 44.0,
    "deepseek-r1-distill-qwen-1.5b": 42.0,
    "qwen2.5-1.5b": 47.5,
}
"""Accuracy in percent, by the model's shape."""
POLICIES = ("full", "none", "residual:every@8", f"window@{WINDOW}", f"window@{CONTROL}")


def run(setting: Setting) -> Finding:
    """Score our own questions with each cache, under exact arithmetic."""
    model = setting.model(setting.names[0], "exact")
    questions = read_questions(str(SAMPLE))[: setting.choose(10, 2)]
    scored: dict[str, list[Scored]] = {}
    for number, name in enumerate(POLICIES, start=1):
        make = partial(policy_cache, name, model.weights)
        scored[name] = [score(model, question, make) for question in questions]
        setting.progress("endings", number, len(POLICIES))
    rows = [_figures(name, scored[name], scored["full"]) for name in POLICIES]
    longest = max(each.longest for each in scored["full"])
    context = min(each.context for each in scored["full"])
    bits = {row["policy"]: row["same_bits"] for row in rows}
    figures = {
        "bits": bits,
        "rows": rows,
        "longest": longest,
        "shortest_context": context,
        "paper": PAPER.get(of_the_paper(model.config)),
    }
    return told_of(figures)


def _figures(name: str, scored: Sequence[Scored], full: Sequence[Scored]) -> dict[str, Any]:
    same = [one.sums == other.sums for one, other in zip(scored, full, strict=True)]
    return {
        "policy": name,
        "questions": len(scored),
        "accuracy": 100 * accuracy(scored),
        "by_tokens": 100 * accuracy(scored, "tokens"),
        "same_bits": sum(same),
    }


def told(figures: Figures) -> tuple[Verdict, str]:
    """Which caches have the full one's bits."""
    count = figures["rows"][0]["questions"]
    bits = figures["bits"]
    as_full = [name for name in POLICIES[1:-1] if bits[name] == count]
    verdict = Verdict.CANNOT if len(as_full) == len(POLICIES) - 2 else Verdict.REFUTED
    return verdict, (
        "The accuracies need HellaSwag: `minikv score FILE --policies ...` makes them of its usual "
        f"JSONL. With {', '.join(as_full)} every ending's log-likelihood has the full cache's "
        f"bits, in all {count} of our questions. For the window the reason is length: context and "
        f"ending have at most {figures['longest']} tokens here, and a window of {WINDOW} drops "
        f"nothing of a text of at most {WINDOW} tokens. With a window of {CONTROL}, which every "
        f"context outgrows, {count - bits[POLICIES[-1]]} of {count} questions change."
    )


def told_of(figures: Figures) -> Finding:
    """The verdict and the table."""
    rows = figures["rows"]
    columns = (
        "cache",
        "paper: HellaSwag, 500 (%)",
        "ours: own questions (%)",
        "questions",
        "normalised by tokens (%)",
        "questions whose every bit is the full cache's",
    )
    table = tuple(
        (
            row["policy"],
            None if row["policy"] == POLICIES[-1] else figures["paper"],
            row["accuracy"],
            row["questions"],
            row["by_tokens"],
            row["same_bits"],
        )
        for row in rows
    )
    return Finding(*told(figures), columns, table, figures)


CLAIM = Claim(
    id="table-4-hellaswag",
    where="Table 4, HellaSwag",
    title="KV-Direct has the full cache's accuracy, and so has a window of 64",
    says=(
        "0-shot on 500 questions SmolLM2 has 39.4 %, Qwen2.5-0.5B 41.0, Qwen3-0.6B 44.0, "
        "DeepSeek-R1-1.5B 42.0, Qwen2.5-1.5B 47.5, with the full cache, with KV-Direct and with a "
        "window of 64; prompts are short."
    ),
    protocol=(
        "log-likelihood of each ending by its number of characters, ten questions of our own in "
        "HellaSwag's format (minikv/data/endings.jsonl), whose accuracy is not to be compared with "
        "the paper's, exact arithmetic; the context goes in at once, then "
        "each ending behind a copy of the cache. The paper does not say what it divides by."
    ),
    models=("smollm2-135m-instruct",),
    run=run,
    told=told,
    exact=("bits",),
)
