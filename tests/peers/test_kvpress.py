"""The eviction policies against kvpress, where it implements the same rule.

kvpress compresses a prompt after its prefill, as a press does. That is the first call of
`StreamingLLM` (`StreamingLLMPress`; with `reposition`, inside a `KeyRerotationPress`), of `TOVA`
(`TOVAPress`, which in addition never drops the last token) and of `SnapKV` with pooling of width 1
(`SnapKVPress` takes the average of neighbours, `SnapKV` the maximum). It has no H2O (its
`ObservedAttentionPress` divides by the number of queries) and no window of its own, which is
StreamingLLM without sinks.

kvpress 0.5 asks for transformers below 5.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layerwise import peer_modules

import minikv
from minikv.caches import Evicting

pytestmark = pytest.mark.peers

torch, transformers, kvpress = peer_modules("kvpress")

SEEDS = range(6)
TOKENS, MORE = 30, 4


class Case:
    """A random tiny Llama, the same in minikv, and a text."""

    def __init__(self, seed: int) -> None:
        groups, share = [(2, 2), (1, 3), (3, 1)][seed % 3]
        torch.manual_seed(seed)
        config = transformers.LlamaConfig(
            vocab_size=61,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=groups * share,
            num_key_value_heads=groups,
            head_dim=8,
            max_position_embeddings=128,
            initializer_range=0.2,
            attn_implementation="eager",
            rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        )
        self.peer = transformers.LlamaForCausalLM(config).eval()
        tensors = {name: t.detach().numpy() for name, t in self.peer.state_dict().items()}
        ours = minikv.ModelConfig.from_dict(config.to_dict())
        self.model = minikv.Model(minikv.build(ours, tensors, "float32"))
        rng = np.random.default_rng(seed)
        self.ids = rng.integers(0, 61, TOKENS + MORE).tolist()
        self.budget = int(rng.integers(6, 20))

    def pressed(self, press: Any) -> Any:
        """The peer's cache after a prompt that `press` has compressed to the budget."""
        kept = self.budget + 0.5
        getattr(press, "press", press).compression_ratio = 1 - kept / TOKENS
        cache = transformers.DynamicCache()
        with torch.no_grad(), press(self.peer):
            self.peer(torch.tensor([self.ids[:TOKENS]]), past_key_values=cache)
        return cache

    def kept(self, press: Any) -> list[list[list[int]]]:
        """Positions that `press` keeps, by layer and K/V head."""
        whole = transformers.DynamicCache()
        with torch.no_grad():
            self.peer(torch.tensor([self.ids[:TOKENS]]), past_key_values=whole)
        found = []
        for left, all_rows in zip(self.pressed(press).layers, whole.layers, strict=True):
            same = (left.keys[0, :, :, None] == all_rows.keys[0, :, None]).all(-1)
            assert (same.sum(-1) == 1).all()
            found.append(same.int().argmax(-1).sort(-1).values.tolist())
        return found

    def ours(self, policy: str, **parameters: Any) -> tuple[Any, list[list[list[int]]]]:
        cache = self.model.new_cache(policy, budget=self.budget, **parameters)
        self.model.forward([self.ids[:TOKENS]], [cache])
        return cache, [rows.positions.T.tolist() for rows in cache.rows]

    def agree_afterwards(self, cache: Any, peer_cache: Any, position: int, steps: int) -> None:
        """Logits of the next tokens, both in float32: within 1e-4 of the largest.

        A block is sums of at most n = 48 terms, exact to n u = 3e-6 of their absolute terms with
        u = 2**-24; three blocks through which a change grows by less than 10 make 1e-4.
        """
        for token in self.ids[TOKENS : TOKENS + steps]:
            with torch.no_grad():
                output = self.peer(
                    torch.tensor([[token]]),
                    past_key_values=peer_cache,
                    position_ids=torch.tensor([[position]]),
                )
            position += 1
            peers = output.logits[0].numpy()
            got = self.model.forward([[token]], [cache])
            assert np.abs(got - peers).max() <= 1e-4 * np.abs(peers).max()


@pytest.fixture(params=SEEDS)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


@pytest.mark.parametrize("sinks", [0, 4])
def test_streaming_llm_keeps_what_kvpress_keeps(case, sinks):
    press = kvpress.StreamingLLMPress(n_sink=sinks)
    cache, kept = case.ours("streaming_llm", sinks=sinks, reposition=False)
    assert kept == case.kept(press)
    case.agree_afterwards(cache, case.pressed(press), TOKENS, 1)


def test_window_keeps_what_kvpress_keeps(case):
    press = kvpress.StreamingLLMPress(n_sink=0)
    cache, kept = case.ours("window")
    assert kept == case.kept(press)
    case.agree_afterwards(cache, case.pressed(press), TOKENS, 1)


def test_streaming_llm_turns_keys_as_kvpress_does(case):
    press = kvpress.KeyRerotationPress(kvpress.StreamingLLMPress(n_sink=4))
    cache, _ = case.ours("streaming_llm")
    case.agree_afterwards(cache, case.pressed(press), case.budget, 1)


@pytest.mark.parametrize("window", [1, 5])
def test_snapkv_keeps_what_kvpress_keeps_and_goes_on_alike(case, window):
    press = kvpress.SnapKVPress(window_size=window, kernel_size=1)
    cache, kept = case.ours("snapkv", window=window, kernel=1)
    assert kept == case.kept(press)
    case.agree_afterwards(cache, case.pressed(press), TOKENS, MORE)


def test_tova_keeps_what_kvpress_keeps(case):
    """But for the last token, where TOVA itself would drop it: then that one in its place."""
    for layer, peer_layer in zip(case.ours("tova")[1], case.kept(kvpress.TOVAPress()), strict=True):
        for head, peer_head in zip(layer, peer_layer, strict=True):
            dropped = {TOKENS - 1} - set(head)
            assert set(peer_head) - set(head) == dropped
            assert len(peer_head) == len(head)


def test_a_score_of_keys_keeps_what_kvpress_keeps(case):
    """`priority` sees the keys that the peer's scorer sees: those of smallest norm stay.

    No token comes twice: at layer 0 its keys, turned to two positions, would have one norm.
    """
    rng = np.random.default_rng(case.budget)
    case.ids = rng.permutation(61)[: TOKENS + MORE].tolist()

    class Knorm(Evicting):
        per_head = True

        def priority(self, rows):
            return -np.linalg.norm(rows.keys, axis=-1)

    cache = Knorm(case.model.weights, budget=case.budget)
    case.model.forward([case.ids[:TOKENS]], [cache])
    press = kvpress.KnormPress()
    assert [rows.positions.T.tolist() for rows in cache.rows] == case.kept(press)
    case.agree_afterwards(cache, case.pressed(press), TOKENS, 1)


def test_another_policy_does_not_agree():
    """The comparison can fail."""
    cases = [Case(seed) for seed in SEEDS]
    assert any(
        c.ours("tova")[1] != c.kept(kvpress.SnapKVPress(window_size=5, kernel_size=1))
        for c in cases
    )
    assert all(c.ours("window")[1] != c.kept(kvpress.StreamingLLMPress(n_sink=4)) for c in cases)
    peers = cases[0].pressed(kvpress.StreamingLLMPress(n_sink=4))
    with pytest.raises(AssertionError):
        cases[0].agree_afterwards(cases[0].ours("window")[0], peers, TOKENS, 1)
