"""Agreement with the full cache, policy by policy and budget by budget (claim 7 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from ..caches import Full, evicting
from ..decoder import Weights, forward
from ..model import Model
from ..patching import kl_divergence
from ..progress import Progress, silent
from .policies import policy_cache
from .together import Watched, fill

BUDGETS = (32, 64, 128)
READING = 5  # new tokens that take about as long as reading a prompt of 300, in the bar
Row = dict[str, Any]
Maker = Callable[[Weights, int], Watched]
"""``make(weights, budget)`` is an empty cache."""


@dataclass
class _Run:
    """One policy at one budget, on one prompt."""

    policy: str
    budget: int
    forced: Watched  # is fed the full cache's tokens
    free: Watched | None = None  # is fed its own; from the first token that differs
    token: int = -1  # the last one of its own
    kl: list[float] = field(default_factory=list)
    kl_free: list[float] = field(default_factory=list)
    matches: list[bool] = field(default_factory=list)
    bits_equal: bool = True
    logit_moved: float = 0.0


def compare(
    model: Model,
    prompts: Mapping[str, Sequence[int]],
    budgets: Sequence[int] = BUDGETS,
    new_tokens: int = 64,
    policies: Sequence[str] | Mapping[str, Maker] | None = None,
    progress: Progress = silent,
) -> list[Row]:
    """Continue each prompt greedily with the full cache and with each policy and budget.

    The first new token comes from the pass over the prompt, which every policy sees whole, so it
    cannot differ and is not counted: `new_tokens` are counted after it. A token that ends a text
    does not end it here. Each policy runs twice: on tokens of its own (the match), and on those of
    the full cache (D_KL, so that step t is compared on one and the same text); the two part at the
    first token that differs. All of these are rows of one batch, which changes no bit under Exact.

    Parameters
    ----------
    model : Model
    prompts : mapping of str to token ids
    budgets : sequence of int
        Tokens whose K/V are kept.
    new_tokens : int
    policies : sequence of str, or mapping of str to callable, optional
        Names that `policy_cache` knows, or what makes a cache from weights and budget, by name; by
        default ``residual:every`` and every policy that drops tokens.

    Returns
    -------
    list of dict, one for each policy, budget and prompt
        ``match``: fraction of new tokens equal to the full cache's, position by position.
        ``kl_mean``, ``kl_max``: D_KL(full || policy) of the next token, over the steps, in nats.
        ``kl_free``: the mean of the same between two runs on tokens of their own; ``kl_parted``:
        after the first token that differs, where it is of what follows two texts, or None.
        ``first_divergence``: the first new token that differs, from 1, or None.
        ``bits_equal``: whether all logits of all steps equal the full cache's bit for bit.
        ``logit_moved``: how far the logit that moves furthest is from the full cache's.
        ``bytes``, ``full_bytes``: held at the end.
    """
    if policies is None:
        policies = ("residual:every", *evicting())
    rows = []
    shares = _Shares(prompts, new_tokens, progress)
    for name, ids in prompts.items():
        full = Full(model.weights)
        runs = [
            _Run(policy, budget, make(model.weights, budget))
            for policy, make in _makers(policies).items()
            for budget in budgets
        ]
        caches = [full, *(run.forced for run in runs)]
        token = int(fill(model.weights, caches, ids, shares.reading(name)).argmax())
        for step in range(new_tokens):
            token = _step(model, full, runs, token)
            shares.stepped(name, step + 1)
        for run in runs:
            rows.append({"prompt": name, "tokens": len(ids), **_row(run, full)})
    return rows


class _Shares:
    """How far all prompts are: reading one counts as `READING` of its new tokens."""

    def __init__(self, prompts: Iterable[str], new_tokens: int, progress: Progress) -> None:
        self.numbers = {name: number for number, name in enumerate(prompts)}
        self.new_tokens = new_tokens
        self.progress = progress

    def reading(self, name: str) -> Progress:
        """What is told while a prompt is read, layer by layer."""

        def tell(label: str, done: float, total: float = 1.0) -> None:
            self._tell(name, READING * done / total)

        return tell

    def stepped(self, name: str, steps: int) -> None:
        """Tell that new tokens have been decoded everywhere."""
        self._tell(name, READING + steps)

    def _tell(self, name: str, done: float) -> None:
        each = READING + self.new_tokens
        before = self.numbers[name] * each
        self.progress(f"compare: {name}", before + done, len(self.numbers) * each)


def _makers(policies: Sequence[str] | Mapping[str, Maker]) -> Mapping[str, Maker]:
    """What makes each policy's caches."""
    if isinstance(policies, Mapping):
        return policies
    return {name: _by_name(name) for name in policies}


def _by_name(name: str) -> Maker:
    """What makes the caches of a policy that `policy_cache` knows."""
    return lambda weights, budget: policy_cache(name, weights, budget)


def _row(run: _Run, full: Full) -> Row:
    """What became of a run."""
    first_divergence = None
    parted: list[float] = []
    if not all(run.matches):
        first_divergence = run.matches.index(False) + 1
        parted = run.kl_free[first_divergence:]
    return {
        "policy": run.policy,
        "budget": run.budget,
        "match": fmean(run.matches),
        "kl_mean": fmean(run.kl),
        "kl_max": max(run.kl),
        "kl_free": fmean(run.kl_free),
        "kl_parted": mean_of(parted),
        "first_divergence": first_divergence,
        "bits_equal": run.bits_equal,
        "logit_moved": run.logit_moved,
        "bytes": run.forced.nbytes,
        "full_bytes": full.nbytes,
    }


def _step(model: Model, full: Full, runs: list[_Run], token: int) -> int:
    """Decode one token everywhere; returns the full cache's next."""
    parted = [run for run in runs if run.free is not None]
    caches = [full, *(run.forced for run in runs), *(run.free for run in parted)]
    tokens = [[token]] * (1 + len(runs)) + [[run.token] for run in parted]
    logits = np.asarray(forward(model.weights, tokens, caches))
    best = logits.argmax(axis=-1).tolist()
    own_texts = 1 + len(runs)
    for run, row, own in zip(parted, logits[own_texts:], best[own_texts:], strict=True):
        run.token = own
        run.kl_free.append(float(kl_divergence(logits[0], row)))
    for run, row, own in zip(runs, logits[1:], best[1:], strict=False):
        run.kl.append(float(kl_divergence(logits[0], row)))
        run.bits_equal &= row.tobytes() == logits[0].tobytes()
        run.logit_moved = max(run.logit_moved, float(np.abs(row - logits[0]).max()))
        if run.free is None:
            run.token = own
            run.kl_free.append(run.kl[-1])
            if own != best[0]:
                run.free = run.forced.fork()
        run.matches.append(run.token == best[0])
    return best[0]


def summary(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """`compare`'s rows with the prompts taken together: means, and the worst of them."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["policy"], row["budget"]), []).append(row)
    return [
        {
            "policy": policy,
            "budget": budget,
            "match": fmean(_all(group, "match")),
            "worst_match": min(_all(group, "match")),
            "kl_mean": fmean(_all(group, "kl_mean")),
            "kl_max": max(_all(group, "kl_max")),
            "first_divergence": min(filter(None, _all(group, "first_divergence")), default=None),
            "bits_equal": all(_all(group, "bits_equal")),
            "bytes": round(fmean(_all(group, "bytes"))),
            "full_bytes": round(fmean(_all(group, "full_bytes"))),
        }
        for (policy, budget), group in groups.items()
    ]


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of those that are there, if any is."""
    there = [value for value in values if value is not None]
    return fmean(there) if there else None


def _all(rows: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    return [row[key] for row in rows]
