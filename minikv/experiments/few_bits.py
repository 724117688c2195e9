"""Caches of few bits beside recomputation from residuals: bytes a token, and what they lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np

from ..arrays import Array
from ..atlas import Entry
from ..atlas.entry import CacheFor
from ..atlas.quantising import Quantised, head_moves
from ..model import Model
from ..progress import Progress, silent
from .compare import Maker, compare
from .policies import policy_cache

LOSSLESS = ("residual:every@0", "none")
"""What the caches of few bits stand beside: a residual a layer, and token ids alone."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """How texts are continued.

    Attributes
    ----------
    new_tokens : int
        Of each text.
    tokens : int
        Of each prompt, at most; its last ones.
    """

    new_tokens: int = 16
    tokens: int = 128


def few_bits(
    model: Model,
    prompts: Mapping[str, Sequence[int]],
    entries: Sequence[Entry],
    setting: Setting = Setting(),
    progress: Progress = silent,
) -> list[Row]:
    """Continue each prompt with the full cache, with caches of few bits, and without loss.

    The prompt is read once, by the full cache's keys and values, and every cache keeps it as it
    does (`compare`). Heads are those of the prompt's last token (`head_moves`).

    Parameters
    ----------
    model : Model
    prompts : mapping of str to token ids
    entries : sequence of Entry
        Of the atlas, those that keep few bits.
    setting : Setting
    progress : callable

    Returns
    -------
    list of dict, one for each cache and prompt
        ``bytes``: a token, packed. ``full_bytes``: of the full cache. ``bits_equal``,
        ``logit_moved``, ``kl_mean``, ``kl_max``, ``first_divergence``: as of `compare`.
        ``heads``: how many; ``within``: how many moved by no more than the bound; ``moved``: how
        far beside their length, ``slack``: the bound beside that; medians. These four are None
        where no row is rounded.
    """
    caches = {
        f"{entry.title}, {how}": make for entry in entries for how, make in entry.caches.items()
    }
    makers: dict[str, Maker] = {name: _lossless(name) for name in LOSSLESS}
    makers |= {name: _rounding(model, make) for name, make in caches.items()}
    cut = {name: list(ids)[-setting.tokens :] for name, ids in prompts.items()}
    rows = []
    for found in compare(model, cut, (0,), setting.new_tokens, makers, progress):
        seen = found["tokens"] + setting.new_tokens
        rows.append(
            {
                "cache": found["policy"],
                "prompt": found["prompt"],
                "bytes": found["bytes"] / seen,
                "full_bytes": found["full_bytes"] / seen,
                **{name: found[name] for name in KEPT},
            }
        )
    for number, (prompt, ids) in enumerate(cut.items()):
        progress(f"heads: {prompt}", number, len(cut))
        _, activations = model.run_with_cache(ids)
        for row in rows:
            if row["prompt"] == prompt:
                make = caches.get(row["cache"])
                row |= NO_HEADS if make is None else head_figures(activations, make(model), ids)
    progress("heads", len(cut), len(cut))
    return rows


KEPT = ("bits_equal", "logit_moved", "kl_mean", "kl_max", "first_divergence")
NO_HEADS: Row = {"heads": None, "within": None, "moved": None, "slack": None}


def head_figures(activations: Mapping[str, Array], cache: Quantised, ids: Sequence[int]) -> Row:
    """What `few_bits` says of the heads of one text."""
    moved, bound, length = head_moves(activations, cache, ids).reshape(-1, 3).T
    return {
        "heads": len(moved),
        "within": int((moved <= bound).sum()),
        "moved": float(np.median(moved / length)),
        "slack": float(np.median(bound / moved)),
    }


def _lossless(name: str) -> Maker:
    return lambda weights, budget: policy_cache(name, weights)


def _rounding(model: Model, make: CacheFor) -> Maker:
    return lambda weights, budget: make(model)


def summary(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The prompts taken together: means of bytes and D_KL, medians of heads, the worst of others.

    ``texts`` says how many there are, and ``parted`` in how many of them some token differs.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["cache"], []).append(row)
    return [{"cache": name, **_together(group)} for name, group in groups.items()]


def _together(group: Sequence[Mapping[str, Any]]) -> Row:
    def all_of(key: str) -> list[Any]:
        return [row[key] for row in group if row[key] is not None]

    first = all_of("first_divergence")
    told = {
        "bytes": round(fmean(all_of("bytes"))),
        "full_bytes": round(fmean(all_of("full_bytes"))),
        "bits_equal": all(all_of("bits_equal")),
        "logit_moved": max(all_of("logit_moved")),
        "kl_mean": fmean(all_of("kl_mean")),
        "kl_max": max(all_of("kl_max")),
        "first_divergence": min(first, default=None),
        "texts": len(group),
        "parted": len(first),
    }
    if not all_of("heads"):
        return told | NO_HEADS
    return told | {
        "heads": sum(all_of("heads")),
        "within": sum(all_of("within")),
        "moved": median(all_of("moved")),
        "slack": median(all_of("slack")),
    }
