"""The texts that the experiments read, and files of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

import minikv
from minikv import experiments
from minikv.errors import InputError
from minikv.experiments import accounting


def test_the_committed_texts_are_eight_kinds_and_the_conversation_has_20_turns():
    prompts = experiments.read_prompts()
    assert len(prompts) == 8
    assert len(experiments.read_conversation()) == accounting.PAPER_TURNS == 20
    assert len(experiments.read_conversation("conversation-france")) == accounting.PAPER_TURNS
    assert len(experiments.read_passages()) == 5
    data = Path(minikv.__file__).parent / "data"
    assert sum(file.stat().st_size for file in data.glob("*.txt")) < 200_000


@pytest.mark.weights
def test_every_committed_text_has_at_least_256_tokens(smollm2):
    model = minikv.load(smollm2)
    prompts = experiments.read_prompts()
    lengths = {name: len(model.tokenizer.encode(text)) for name, text in prompts.items()}
    assert min(lengths.values()) >= 256, lengths
    passages = experiments.read_passages().values()
    assert min(len(model.tokenizer.encode(text)) for text in passages) >= 1024


@pytest.mark.parametrize("content", [b"", b"no name\n", b"text\n=== a\nb\n", b"\xff\n"])
def test_a_file_that_holds_no_prompts_is_refused(tmp_path, content):
    (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"p\.txt"):
        experiments.read_prompts(tmp_path / "p.txt")
