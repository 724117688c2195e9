"""Likelihoods of texts, and of the endings of multiple-choice questions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from ..arrays import Array, to_numpy
from ..caches import Cache
from ..decoder import forward
from ..errors import InputError, TokenizerError
from ..model import Model
from ..progress import Progress, silent

SAMPLE = resources.files("minikv") / "data" / "endings.jsonl"
"""Questions of our own in HellaSwag's format."""

ROWS = 32  # of logits that are in float64 at a time
MakeCache = Callable[[], Cache]


def log_likelihoods(logits: Array, ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Log-likelihood of each token by the logits before it; ``(T, V), (T,) -> (T,)``, in nats.

    Taken in float64, some rows at a time: a vocabulary is long.
    """
    said = np.asarray(ids)
    found = np.empty(len(said))
    for start in range(0, len(said), ROWS):
        rows = slice(start, start + ROWS)
        x = to_numpy(logits[rows, ...], dtype=np.float64)
        x = x - x.max(axis=-1, keepdims=True)
        total = np.log(np.exp(x).sum(axis=-1))
        found[rows] = x[np.arange(len(x)), said[rows]] - total
    return found


def perplexity(likelihoods: Sequence[np.ndarray]) -> float:
    """``exp`` of the mean loss over all tokens.

    Examples
    --------
    >>> round(perplexity([np.log([0.5, 0.25]), np.log([0.125])]), 6)
    4.0
    """
    return math.exp(-float(np.concatenate(likelihoods).mean()))


def pieces(ids: Sequence[int], length: int, where: str = "the text") -> list[list[int]]:
    """Cut a text into pieces of `length` tokens; what is left at the end is not used.

    Raises
    ------
    InputError
        If there are fewer tokens than one piece has.
    """
    if len(ids) < length:
        raise InputError(
            f"{where} has {len(ids)} tokens, expected at least {length}: give a longer text or a "
            "shorter --length"
        )
    count = len(ids) // length
    return [list(ids[number * length : (number + 1) * length]) for number in range(count)]


def read_text(model: Model, path: str | Path) -> list[int]:
    """Token ids of a file of text.

    Raises
    ------
    InputError, TokenizerError
        If it is not UTF-8, or the model has no tokenizer.
    """
    if model.tokenizer is None:
        raise TokenizerError("the model has no tokenizer.json, which text needs")
    try:
        return model.tokenizer.encode(Path(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None


def at_once(model: Model, ids: Sequence[int]) -> np.ndarray:
    """Log-likelihoods of all tokens but the first, by one pass without a cache, ``(T - 1,)``."""
    return log_likelihoods(model.logits(ids)[:-1, ...], ids[1:])


def step_by_step(
    model: Model, texts: Sequence[tuple[Sequence[int], Cache]], progress: Progress = silent
) -> list[np.ndarray]:
    """The same with a cache each, which is fed one token after another.

    A cache that drops rows after each call so drops them at every token.
    """
    found: list[list[float]] = [[] for _ in texts]
    longest = max(len(ids) for ids, _ in texts)
    for step in range(longest - 1):
        active = [number for number, (ids, _) in enumerate(texts) if step + 1 < len(ids)]
        tokens = [[texts[number][0][step]] for number in active]
        following = [texts[number][0][step + 1] for number in active]
        logits = forward(model.weights, tokens, [texts[number][1] for number in active])
        assert logits is not None
        for number, likelihood in zip(active, log_likelihoods(logits, following), strict=True):
            found[number].append(float(likelihood))
        progress("step by step", step + 1, longest - 1)
    return [np.array(likelihoods) for likelihoods in found]


# Multiple choice


@dataclass(frozen=True)
class Question:
    """A text, and endings of which one is right.

    Attributes
    ----------
    context : str
    endings : tuple of str
    label : int
        Which one is right, from 0.
    """

    context: str
    endings: tuple[str, ...]
    label: int


def read_questions(path: str | Path) -> list[Question]:
    """Questions from a JSONL file in HellaSwag's format (Zellers et al. 2019, arXiv 1905.07830).

    A line has ``endings``, ``label`` and a context: ``ctx_a`` and ``ctx_b``, or ``ctx``; with
    ``activity_label`` before it, if there is one. Texts are tidied as is usual for this set: marks
    in square brackets go, ``[title]`` is a full stop, ``ctx_b`` begins with a capital.

    Raises
    ------
    InputError
        In one line, for a file or a line that holds something else.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except ValueError:
        raise InputError(f"{path} is not UTF-8 text") from None
    numbered = enumerate(lines, start=1)
    questions = [_question(line, f"{path}, line {n}") for n, line in numbered if line.strip()]
    if not questions:
        raise InputError(f"{path} holds no questions, expected one JSON object a line")
    return questions


def _question(line: str, where: str) -> Question:
    try:
        item = json.loads(line)
    except ValueError:
        raise InputError(f"{where}: not JSON, expected an object with ctx and endings") from None
    if not isinstance(item, dict):
        raise InputError(f"{where}: expected an object with ctx and endings")
    endings = _endings(item.get("endings"), where)
    label = item.get("label")
    if not str(label).isdecimal() or int(str(label)) >= len(endings):
        raise InputError(
            f"{where}: label is {label!r:.40}, expected the number of the right ending, 0 to "
            f"{len(endings) - 1}"
        )
    context = _context(item)
    if not context:
        raise InputError(f"{where}: no context, expected ctx_a and ctx_b, or ctx")
    return Question(context, endings, int(str(label)))


def _endings(given: object, where: str) -> tuple[str, ...]:
    listed = given if isinstance(given, list) else []
    texts = [tidied(ending) for ending in listed if isinstance(ending, str)]
    if len(texts) < max(2, len(listed)) or not all(texts):
        raise InputError(f"{where}: endings is {given!r:.40}, expected two or more texts")
    return tuple(texts)


def _context(item: Mapping[str, object]) -> str:
    text = str(item.get("ctx", ""))
    if "ctx_a" in item:
        text = f"{item['ctx_a']} {str(item.get('ctx_b', '')).capitalize()}"
    if item.get("activity_label"):
        text = f"{item['activity_label']}: {text}"
    return tidied(text)


def tidied(text: str) -> str:
    """A text of the set without its marks.

    Examples
    --------
    >>> tidied(" Baking: [header] A cake [title] First  steps")
    'Baking: A cake. First steps'
    """
    text = text.strip().replace(" [title]", ". ")
    text = re.sub(r"\[.*?\]", "", text)
    return text.replace("  ", " ").strip()


@dataclass(frozen=True)
class Scored:
    """What a model makes of a question.

    Attributes
    ----------
    label : int
    sums : tuple of float
        Log-likelihood of each ending after the context, in nats.
    tokens, characters : tuple of int
        Length of each ending.
    context : int
        Tokens of the context.
    """

    label: int
    sums: tuple[float, ...]
    tokens: tuple[int, ...]
    characters: tuple[int, ...]
    context: int

    def chosen(self, length: str = "characters") -> int:
        """The ending of the highest log-likelihood by ``"characters"``, ``"tokens"`` or ``""``."""
        lengths: Sequence[int] = [1] * len(self.sums)
        if length:
            lengths = getattr(self, length)
        return int(np.argmax([total / n for total, n in zip(self.sums, lengths, strict=True)]))

    @property
    def longest(self) -> int:
        """Tokens of the context and its longest ending."""
        return self.context + max(self.tokens)


def encoded(model: Model, question: Question) -> tuple[list[int], list[list[int]]]:
    """Token ids of the context, and of each ending behind it."""
    if model.tokenizer is None:
        raise TokenizerError("the model has no tokenizer.json, which questions need")
    context = model.tokenizer.encode(question.context)
    whole = [model.tokenizer.encode(f"{question.context} {text}") for text in question.endings]
    return context, [ids[len(context) :] for ids in whole]


def score(model: Model, question: Question, make: MakeCache) -> Scored:
    """Log-likelihoods of all endings, each behind a copy of the cache that holds the context.

    Parameters
    ----------
    model : Model
    question : Question
    make : callable
        Makes an empty cache. One that drops rows drops them after the context, and not within an
        ending.
    """
    context, endings = encoded(model, question)
    cache = make()
    before = to_numpy(forward(model.weights, [context], [cache]))
    caches = [cache.fork() for _ in endings]
    rows = to_numpy(forward(model.weights, endings, caches, logits="all"))
    sums = []
    for ids, logits in zip(endings, _split(rows, endings), strict=True):
        likelihoods = log_likelihoods(np.concatenate([before, logits[:-1]]), ids)
        sums.append(float(likelihoods.sum()))
    return Scored(
        question.label,
        tuple(sums),
        tuple(map(len, endings)),
        tuple(map(len, question.endings)),
        len(context),
    )


def _split(rows: np.ndarray, endings: Sequence[Sequence[int]]) -> Iterator[np.ndarray]:
    """The rows of each ending."""
    ends = np.cumsum([len(ids) for ids in endings])
    yield from np.split(rows, ends[:-1])


def accuracy(scored: Sequence[Scored], length: str = "characters") -> float:
    """Fraction of questions whose right ending is chosen; `length` as `Scored.chosen` takes it."""
    right = [each.chosen(length) == each.label for each in scored]
    return sum(right) / len(right)
