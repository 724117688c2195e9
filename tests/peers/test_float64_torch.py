"""minikv against transformers on the real weights, both in float64 throughout."""

from __future__ import annotations

import numpy as np
import pytest
from layerwise import first_divergence, in_float64, peer_modules, torch_activations

import minikv
from minikv.rotary import rope_frequencies

torch, transformers = peer_modules()
pytestmark = [pytest.mark.peers, pytest.mark.weights]

IDS = [504, 3575, 282, 4649, 314, *np.random.default_rng(0).integers(0, 49152, 59).tolist()]


@pytest.fixture(scope="module")
def peer(smollm2):
    return transformers.AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def double(smollm2):
    return minikv.load(smollm2, arithmetic="float64")


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def test_float64_agrees_to_1e9_and_float32_is_as_close_as_torch(smollm2, peer, double):
    with torch.inference_mode():
        torch_single = peer(torch.tensor([IDS])).logits[0].double().numpy()
    logits, activations = double.run_with_cache(IDS)
    truth, peer_activations = torch_activations(
        in_float64(peer, rope_frequencies(double.config)), IDS
    )
    # The stream reaches 1e4 in some channels, so 1e-9 there is 13 digits.
    assert first_divergence(activations, peer_activations, 1e-9) is None
    assert np.abs(logits - truth).max() < 1e-9
    single = minikv.load(smollm2).logits(IDS)
    assert rms(logits - truth) < rms(single - truth) / 1000
    assert rms(single - truth) <= 1.5 * rms(torch_single - truth)


def test_transformers_reads_the_fetched_folder_as_minikv_does(smollm2, double):
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)
    for text in ("Hello, world!", " 1234 tab\tü 北京 🙂\n\n<|im_start|>user\nhi<|im_end|>"):
        assert tokenizer(text)["input_ids"] == list(double.tokenizer.encode(text))
    messages = [{"role": "user", "content": "What is 2+2?"}]
    theirs = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert double.tokenizer.apply_chat_template(messages, add_generation_prompt=True) == theirs
