"""Which of the paper's six models a model is: its figures stand beside that one's alone."""

from __future__ import annotations

from ..config import ModelConfig
from ..shapes import shape

SMOLLM2 = "smollm2-135m"
QWEN_SMALL = "qwen2.5-0.5b"
GEMMA = "gemma-3-4b"
SIX = (
    SMOLLM2,
    QWEN_SMALL,
    "qwen3-0.6b",
    "deepseek-r1-distill-qwen-1.5b",
    "qwen2.5-1.5b",
    GEMMA,
)
"""By the names of their shapes."""
TOLD_BY = (
    "model_type",
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rope_theta",
)
"""What tells them apart; a base model and what was made of it by training are not."""


def of_the_paper(config: ModelConfig) -> str:
    """The name of its shape; empty for a model that the paper has no figures of.

    Examples
    --------
    >>> of_the_paper(shape("qwen2.5-1.5b")), of_the_paper(shape("gemma-3-270m"))
    ('qwen2.5-1.5b', '')
    """
    for name in SIX:
        theirs = shape(name)
        if all(getattr(config, key) == getattr(theirs, key) for key in TOLD_BY):
            return name
    return ""
