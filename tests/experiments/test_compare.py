"""What compare says of a policy is what separate runs say."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from experiments.toys import RESIDUAL, texts, tiny

import minikv
from minikv import experiments
from minikv.caches import POLICIES, evicting
from minikv.errors import CacheError, InputError
from minikv.experiments import compare, policy_cache


@pytest.mark.parametrize("seed", range(2))
def test_residual_matches_the_full_cache_in_every_bit_at_every_budget_and_no_baseline_does(seed):
    model = tiny(seed=seed, num_hidden_layers=4)
    for row in compare.compare(model, texts(1, 20, seed), [1, 2, 5, 13], 10, RESIDUAL):
        assert row["match"] == 1.0, row
        assert row["kl_mean"] == row["kl_max"] == 0.0, row
        assert row["bits_equal"], row
        assert row["first_divergence"] is None, row
    for row in compare.compare(model, texts(1, 20, seed), [5, 13], 10, evicting()):
        assert row["kl_max"] > 0.0, row  # the zeros above are not vacuous
        assert not row["bits_equal"], row


def test_every_policy_equals_the_full_cache_where_the_budget_covers_the_text():
    model = tiny()
    policies = [name for name in POLICIES if name != "full"]
    for row in compare.compare(model, texts(1, 20), [20 + 12], 12, policies):
        assert row["bits_equal"], row
        assert row["kl_max"] == 0.0, row
        assert row["match"] == 1.0, row
        assert row["bytes"] == row["full_bytes"] or row["policy"] in ("none", "residual")


@pytest.mark.parametrize("policy", evicting())
def test_compare_says_what_separate_runs_say(policy):
    """The batch, the shared prefill and the fork at the first difference change no figure."""
    model, prompts = tiny(seed=3, tie_word_embeddings=False), texts(2, 24)
    rows = compare.compare(model, prompts, [6], 10, [policy])
    for row, ids in zip(rows, prompts.values(), strict=True):
        full = list(model.generate(ids, 11, "full", stop=()))
        assert len(set(full)) > 5  # tied embeddings say the last token again and again
        cache = experiments.policy_cache(policy, model.weights, 6)
        own = list(model.generate(ids, 11, cache, stop=()))
        same = [a == b for a, b in zip(full, own, strict=True)]
        assert same[0]  # from the pass over the prompt: not counted
        assert row["match"] == np.mean(same[1:])
        assert row["first_divergence"] == (None if all(same) else same.index(False))
        reference, cache = model.new_cache(), experiments.policy_cache(policy, model.weights, 6)
        model.forward([ids, ids], [reference, cache])
        kl = []
        for token in full[:-1]:
            logits = model.forward([[token], [token]], [reference, cache])
            kl.append(float(minikv.kl_divergence(logits[0], logits[1])))
        assert row["kl_mean"] == statistics.fmean(kl)
        assert row["kl_max"] == max(kl) > 0
        assert (row["bytes"], row["full_bytes"]) == (cache.nbytes, reference.nbytes)
        free = free_divergences(model, ids, policy, full, own)
        assert row["kl_free"] == statistics.fmean(free)
        first = row["first_divergence"]
        assert row["kl_parted"] == compare.mean_of(free[first:] if first else [])


def free_divergences(model, ids, policy, full, own) -> list[float]:
    """D_KL of each step between two runs, each on its own tokens."""
    reference = model.new_cache()
    cache = experiments.policy_cache(policy, model.weights, 6)
    model.forward([ids, ids], [reference, cache])
    found = []
    for token, other in zip(full[:-1], own[:-1], strict=True):
        logits = model.forward([[token], [other]], [reference, cache])
        found.append(float(minikv.kl_divergence(logits[0], logits[1])))
    return found


def test_caches_of_ones_own_are_compared_by_the_name_they_are_given():
    model = tiny()
    makers = {"mine": lambda weights, budget: experiments.policy_cache("h2o", weights, budget)}
    (mine,) = compare.compare(model, texts(1, 20), [5], 8, makers)
    (named,) = compare.compare(model, texts(1, 20), [5], 8, ["h2o"])
    assert mine == {**named, "policy": "mine"}


def test_the_summary_takes_means_over_prompts_and_keeps_the_worst():
    base = {"policy": "p", "budget": 4, "bits_equal": True, "bytes": 10, "full_bytes": 20}
    good = base | {"match": 1.0, "kl_mean": 0.0, "kl_max": 0.0, "first_divergence": None}
    good |= {"kl_free": 0.0, "kl_parted": None}
    bad = base | {
        "kl_free": 4.0,
        "kl_parted": 5.0,
        "match": 0.5,
        "kl_mean": 1.0,
        "kl_max": 3.0,
        "first_divergence": 7,
    }
    (row,) = compare.summary([good, bad | {"bits_equal": False}])
    assert (row["match"], row["worst_match"]) == (0.75, 0.5)
    assert (row["kl_mean"], row["kl_max"]) == (0.5, 3.0)
    assert (row["first_divergence"], row["bits_equal"], row["bytes"]) == (7, False, 10)


@pytest.mark.weights
@pytest.mark.slow
def test_residual_keeps_every_bit_of_a_real_model_and_the_baselines_do_not(smollm2):
    model = minikv.load(smollm2, "exact")
    ids = model.tokenizer.encode(experiments.read_prompts()["letter"])[:96]
    residuals = [f"residual:{kept}" for kept in ("every", "7", "embedding", "tokens")]
    for row in compare.compare(model, {"letter": ids}, [1, 32], 3, [*residuals, "h2o"]):
        lossless = row["policy"] in residuals
        assert row["bits_equal"] == lossless, row
        assert (row["kl_max"] == 0.0) == lossless, row
        assert row["match"] == 1.0 or not lossless, row


MINE = '''
from minikv.caches import Evicting

class Oldest(Evicting):
    """Keep what came first."""
    policy = "oldest"
    def priority(self, rows):
        return -rows.positions

class Nothing: ...
'''


def test_a_policy_of_ones_own_is_found_in_this_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(POLICIES, "oldest", None)  # so that it is forgotten afterwards
    (tmp_path / "my_policies.py").write_text(MINE, encoding="utf-8")
    model = minikv.random_model(minikv.tiny_config())
    cache = policy_cache("my_policies:Oldest@3", model.weights)
    assert (cache.policy, cache.budget) == ("oldest", 3)
    assert policy_cache("my_policies:Oldest", model.weights, 7).budget == 7
    for name, said in (
        ("no_such_module:Oldest", "importing no_such_module fails"),
        ("my_policies:Newest", "my_policies has no Newest"),
    ):
        with pytest.raises(InputError, match=said):
            policy_cache(name, model.weights)
    with pytest.raises(CacheError, match="expected a subclass of Cache"):
        policy_cache("my_policies:Nothing", model.weights)


def test_progress_is_told_from_the_first_layer_on_and_never_goes_back():
    model = tiny(num_hidden_layers=4)
    prompts = texts(2, 20)
    told: list[tuple[str, float, float]] = []
    compare.compare(model, prompts, [5], 3, ["window"], lambda *said: told.append(said))
    shares = [done / total for _, done, total in told]
    assert shares[0] == 0.0
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    first = [done for label, done, _ in told if label == f"compare: {next(iter(prompts))}"]
    assert len(first) == 4 + 3  # layers of the reading, then new tokens
    assert len(set(first)) == len(first)
