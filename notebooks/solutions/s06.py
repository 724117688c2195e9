"""Solutions of chapter 6."""

from __future__ import annotations

import numpy as np


def window_keeps(positions, budget):
    """The newest: a slice that is too long gives all there is."""
    return positions[-budget:]


def sinks_keep(positions, budget, sinks):
    """Everything, or the first `sinks` and the newest that still fit."""
    if len(positions) <= budget:
        return positions
    return positions[:sinks] + positions[len(positions) - (budget - sinks) :]


def heavy_keep(scores, budget, recent):
    """Rank by (score, row number): the row number decides between equals."""
    rows = list(range(len(scores)))
    newest = rows[max(0, len(rows) - recent) :]
    older = rows[: len(rows) - len(newest)]
    ranked = sorted(older, key=lambda row: (scores[row], row), reverse=True)
    return sorted(newest + ranked[: budget - len(newest)])


def loss_and_bound(weights, v, keep):
    """Both sides of T9."""
    eps = weights[~keep].sum()
    renormalised = np.where(keep, weights, 0.0) / (1 - eps)
    loss = np.linalg.norm(weights @ v - renormalised @ v)
    return loss, 2 * eps * np.linalg.norm(v, axis=1).max()


def worst_case(eps):
    """The kept key says -1 and the dropped one +1: o = 2 eps - 1, and o' = -1."""
    return np.array([1 - eps, eps]), np.array([[-1.0], [1.0]]), np.array([True, False])
