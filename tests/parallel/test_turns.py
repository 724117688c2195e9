"""Ranks without threads: they take turns in one, and give what threads give."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import minikv
from minikv.errors import RankError
from minikv.parallel import Comm, run_threads
from minikv.parallel.threads import run_turns
from minikv.verify import THEOREMS, Case, Refuted
from minikv.verify.theorems import t12_split

SPLIT = Case(
    minikv.tiny_config(num_hidden_layers=1), ids=(3, 1, 4, 1), other=(2, 7, 1, 8), chunks=(3, 1)
)


@pytest.fixture
def no_threads(monkeypatch):
    """Python as in WebAssembly, where no thread starts."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)


def mixed(comm: Comm) -> list[float]:
    """Sums, maxima and parts of all ranks, each made from the ones before."""
    mine = np.array([0.1 * (comm.rank + 1), 0.7])
    total = comm.sum(mine)
    largest = comm.max(mine * total)
    parts = comm.gather(largest + comm.rank)
    return np.concatenate([total, largest, *parts, comm.sum(largest)]).tolist()


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_turns_give_what_threads_give(size, seed):
    """Also where each rank adds in an order of its own: float64 sums then differ between ranks."""
    expected = run_threads(size, mixed, seed)
    assert run_turns(size, mixed, seed) == expected
    assert seed is None or size < 5 or len({tuple(found) for found in expected}) > 1


def test_a_split_model_has_the_same_bits_without_threads(no_threads):
    size = t12_split.ranks_of(SPLIT.config, SPLIT.rng)
    assert size > 1
    THEOREMS["T12"].check(SPLIT)
    with pytest.raises(Refuted):
        THEOREMS["T12"].check(replace(SPLIT, arithmetic="float32"))


def test_threads_are_used_where_there_are_any(monkeypatch):
    seen = set()
    run_threads(2, lambda comm: seen.add(threading.get_ident()))
    assert threading.get_ident() not in seen


def failing(comm: Comm, at: int) -> None:
    comm.sum(np.ones(1))
    if comm.rank == at:
        raise ValueError("this rank fails")
    comm.sum(np.ones(1))


def ending(comm: Comm) -> None:
    if comm.rank:
        comm.sum(np.ones(1))


@pytest.mark.parametrize("at", [0, 2])
def test_an_error_of_one_rank_ends_all(no_threads, at):
    with pytest.raises(ValueError, match="this rank fails"):
        run_threads(3, partial(failing, at=at))


def test_a_rank_that_ends_early_is_noticed(no_threads):
    with pytest.raises(RankError, match="another rank has ended"):
        run_threads(2, ending)
