"""Prompts of different kinds, for the theorems on real weights."""

from __future__ import annotations

from ..errors import TokenizerError
from .cases import Case

TEXTS = {
    "translation": "English: The boats come back before the storm. French: Les bateaux rentrent "
    "avant la tempête. English: Where is the harbour? French:",
    "code": "def mean(values):\n    total = 0.0\n    for value in values:\n        total += value\n"
    "    return total / len(values)\n\ndef variance(values):\n    m = mean(values)\n",
    "arithmetic": "12 + 7 = 19. 30 - 4 = 26. 6 * 8 = 48. 81 / 9 = 9. 15 + 27 = 42. 5 * 12 =",
    "chat": "<|im_start|>user\nName three rivers of Europe and one of Asia.<|im_end|>\n"
    "<|im_start|>assistant\nThe Danube, the",
}


def long_cases(name: str, more: int = 60) -> list[Case]:
    """One text `more` tokens longer than the model's window against another; none without one."""
    model = Case(name, (0,), (0,), (1,)).model
    if not model.config.slides or model.tokenizer is None:
        return []
    length = (model.config.sliding_window or 0) + more
    texts = ["\n".join(kinds) * length for kinds in (TEXTS.values(), reversed(TEXTS.values()))]
    ids = [tuple(model.tokenizer.encode(text[: 10 * length])[:length]) for text in texts]
    return [Case(name, ids[0], ids[1], (length,))]


def real_cases(name: str, tokens: int = 12) -> list[Case]:
    """Each kind of text against the next kind, cut to the same length.

    Parameters
    ----------
    name : str
        A fetched model with a tokenizer.
    tokens : int
        Length of the texts.
    """
    tokenizer = Case(name, (0,), (0,), (1,)).model.tokenizer
    if tokenizer is None:
        raise TokenizerError(f"{name} has no tokenizer.json, which these texts need")
    ids = {kind: tuple(tokenizer.encode(text)[:tokens]) for kind, text in TEXTS.items()}
    kinds = list(ids)
    cases = []
    for seed, (kind, other) in enumerate(zip(kinds, [*kinds[1:], kinds[0]], strict=True)):
        length = min(len(ids[kind]), len(ids[other]))
        prompt = length * 2 // 3
        chunks = (prompt, *[1] * 3, length - prompt - 3)
        cases.append(Case(name, ids[kind][:length], ids[other][:length], chunks, seed))
    return cases
