"""A lossy cache as the draft of an exact verifier: how many of its guesses are accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..atlas.speculation import CacheDraft, Speculator
from ..model import Model
from ..progress import Progress, silent
from .policies import policy_cache

BUDGETS = (32, 64)
POLICIES = ("window", "streaming_llm", "h2o", "tova", "atlas:cake", "atlas:lazy_eviction")
Row = dict[str, object]


@dataclass(frozen=True)
class Setting:
    """How texts are continued.

    Attributes
    ----------
    new_tokens : int
        Of each text.
    ahead : int
        Tokens guessed a round.
    tokens : int
        Of each prompt, at most; its last ones.
    """

    new_tokens: int = 24
    ahead: int = 6
    tokens: int = 128


def drafts(
    model: Model,
    prompts: Mapping[str, Sequence[int]],
    policies: Sequence[str] = POLICIES,
    budgets: Sequence[int] = BUDGETS,
    setting: Setting = Setting(),
    progress: Progress = silent,
) -> list[Row]:
    """Continue each prompt greedily, one by one, and with each policy and budget as the draft.

    Returns
    -------
    list of dict, one for each prompt, policy and budget
        ``drafted``, ``accepted``: guesses, and those that were kept. ``calls``: of the verifier
        after the prompt; ``saved``: how many fewer than one by one. ``draft_calls``: of the draft.
        ``same_tokens``: whether the text is that of one by one, as it must be under exact
        arithmetic.
    """
    rows: list[Row] = []
    steps = len(prompts) * len(policies) * len(budgets)
    for name, whole in prompts.items():
        ids = list(whole)[-setting.tokens :]
        plain = list(model.generate(ids, setting.new_tokens, stop=()))
        for policy in policies:
            for budget in budgets:
                rows.append(
                    {
                        "prompt": name,
                        "tokens": len(ids),
                        **drafted(model, ids, f"{policy}@{budget}", setting, plain),
                    }
                )
                progress(f"drafts: {name}", len(rows), steps)
    return rows


def drafted(
    model: Model, ids: Sequence[int], policy: str, setting: Setting, plain: Sequence[int]
) -> Row:
    """One continuation with a draft."""
    cache = policy_cache(policy, model.weights)
    draft = CacheDraft(model.weights, cache, setting.ahead)
    speculator = Speculator(model.weights, model.new_cache("full"), draft)
    tokens = list(speculator.tokens(ids, setting.new_tokens))
    figures = speculator.figures
    name, _, budget = policy.partition("@")
    return {
        "policy": name,
        "budget": int(budget),
        "drafted": figures.drafted,
        "accepted": figures.accepted,
        "calls": figures.calls,
        "saved": figures.saved,
        "draft_calls": draft.calls,
        "same_tokens": tokens == list(plain),
    }


def summary(rows: Sequence[Mapping[str, object]]) -> list[Row]:
    """The prompts taken together: sums, and the share of guesses that were accepted."""
    groups: dict[tuple[object, object], list[Mapping[str, object]]] = {}
    for row in rows:
        groups.setdefault((row["policy"], row["budget"]), []).append(row)

    def total(group: Sequence[Mapping[str, object]], key: str) -> int:
        return sum(int(str(row[key])) for row in group)

    return [
        {
            "policy": policy,
            "budget": budget,
            "texts": len(group),
            "accepted": total(group, "accepted") / max(1, total(group, "drafted")),
            "calls": total(group, "calls"),
            "saved": total(group, "saved"),
            "draft_calls": total(group, "draft_calls"),
            "same_tokens": all(row["same_tokens"] for row in group),
        }
        for (policy, budget), group in groups.items()
    ]
