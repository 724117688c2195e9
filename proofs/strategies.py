"""The random cases of `minikv.verify`, drawn by Hypothesis: it looks for small ones that fail."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from minikv import ModelConfig
from minikv.config import FAMILIES
from minikv.verify import Case
from minikv.verify.cases import Item, draw_case, draw_config


class Shrinking:
    """Choices of Hypothesis."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def whole(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def one_of(self, options: Sequence[Item]) -> Item:
        return self._draw(st.sampled_from(options))


@st.composite
def configs(
    draw: st.DrawFn,
    max_layers: int = 4,
    windowed: bool = False,
    families: Sequence[str] = tuple(FAMILIES),
) -> ModelConfig:
    """Shapes: see `draw_config`."""
    return draw_config(Shrinking(draw), max_layers, windowed, families)


@st.composite
def cases(
    draw: st.DrawFn,
    max_layers: int = 4,
    min_tokens: int = 1,
    scales: Sequence[float] = (),
    windowed: bool = False,
    families: Sequence[str] = tuple(FAMILIES),
) -> Case:
    """A random model, two texts and a way to cut the first into calls: see `draw_case`."""
    config = draw(configs(max_layers, windowed, families))
    return draw_case(Shrinking(draw), config, min_tokens, scales)
