"""The prompts that the paper gives, and what stands for those that it does not."""

from __future__ import annotations

from ..errors import InputError, TokenizerError
from ..experiments import read_prompts
from ..model import Model

HIGHWAY = (
    "The residual stream is a highway through the network: each layer reads from it, adds to it, "
    "and passes all of it on."
)
"""For table 2, which has 24 tokens about the stream as a highway; the words are ours."""
HIGHWAY_TOKENS = 24

SKY = "Explain why the sky is blue in simple terms."
"""The paper's own, of table 3."""


def highway(model: Model) -> list[int]:
    """The first 24 tokens of the prompt about the highway, by a model's tokenizer."""
    return encoded(model, HIGHWAY)[:HIGHWAY_TOKENS]


def long_text(model: Model, tokens: int) -> list[int]:
    """So many tokens of ours: the story, and what follows it in minikv's prompts.

    Raises
    ------
    InputError
        If there are not so many.
    """
    ids = encoded(model, "\n\n".join(read_prompts().values()))
    if len(ids) < tokens:
        raise InputError(f"{tokens} tokens, expected at most {len(ids)}, which our texts have")
    return ids[:tokens]


def encoded(model: Model, text: str) -> list[int]:
    """A text in a model's tokens.

    Raises
    ------
    TokenizerError
        If the model has no tokenizer.
    """
    if model.tokenizer is None:
        raise TokenizerError(f"{model!r} has no tokenizer.json, which texts need")
    return model.tokenizer.encode(text)
