"""What ``generate`` and ``chat`` share: their options, the model, and an answer as it comes."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..caches import Cache
from ..completion import StopStrings, likeliest, log_probability
from ..errors import InputError, TokenizerError
from ..generation import Observer, sampler
from ..model import Model, load
from ..parallel.build import SplitModel, load_rank
from ..parallel.comm import Comm
from ..parallel.state import load_cache, save_cache
from ..progress import Progress, silent, status
from ..tokenizer import StreamDecoder, Tokenizer
from .caching import add_cache, check_cache
from .fetch import fetch_missing
from .options import add_arithmetic, add_backend, add_json, add_model, add_template, amount
from .output import peak_memory, print_aside, print_json, print_table, readable, wrapping

DRAWING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
"""The options of a draw, by the names that `Model.generate` has for them."""


def add_answering(parser: ArgumentParser) -> None:
    """Add the options of the model and of drawing tokens."""
    add_model(parser)
    add_arithmetic(parser, "float32")
    add_backend(parser)
    parser.add_argument(
        "--max-new-tokens", type=amount, default=128, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="0: the likeliest token (default); above 0: drawn",
    )
    parser.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help="draw among the K likeliest tokens (with --temperature)",
    )
    parser.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="draw among the likeliest that reach P together (likewise)",
    )
    parser.add_argument(
        "--min-p",
        type=float,
        metavar="P",
        help="draw among tokens at least P times as likely as the likeliest (likewise)",
    )
    parser.add_argument(
        "--repetition-penalty",
        type=float,
        metavar="R",
        help="above 1: tokens that were said come less again",
    )
    parser.add_argument("--seed", type=int, metavar="S", help="of the draws (likewise)")
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="WORD",
        help="end where this text comes, without it; may be given again",
    )
    parser.add_argument(
        "--logprobs",
        type=amount,
        metavar="K",
        help="ln p of each token, by the model, and of the K likeliest in its place",
    )
    parser.add_argument(
        "--stream", action="store_true", help="with --json: a line for each token, as it comes"
    )
    add_template(parser)
    parser.add_argument("--fetch", action="store_true", help="fetch the model where it is missing")
    add_json(parser, "text and figures", to_file=False)
    add_cache(parser)


@dataclass(frozen=True)
class Speaker:
    """A model, its tokenizer, and how it answers.

    Parameters
    ----------
    model : Model
    tokenizer : Tokenizer
    stop : frozenset of int
        Token ids that end an answer.
    max_new_tokens : int
    stop_strings : tuple of str
        Texts that end an answer.
    drawing : dict
        The other parameters of `Model.generate`.
    logprobs : int, optional
        How many of the likeliest tokens are told of each step; None tells no log-probability.
    source : callable, optional
        ``source(ids, max_new_tokens, cache)`` continues in place of `Model.generate`.
    """

    model: Model
    tokenizer: Tokenizer
    stop: frozenset[int]
    max_new_tokens: int
    stop_strings: tuple[str, ...]
    drawing: dict[str, Any]
    logprobs: int | None = None
    source: Callable[[Sequence[int], int, Cache], Iterator[int]] | None = None

    @property
    def bytes_per_token(self) -> int:
        """What the full cache holds of a token."""
        return self.model.config.kv_bytes_per_token(f"float{8 * self.model.arithmetic.itemsize}")

    def save_cache(self, cache: Cache, path: str) -> None:
        """Keep a cache in a file; ranks together keep one."""
        if isinstance(self.model, SplitModel):
            save_cache(self.model, cache, path)
        else:
            cache.save(path)

    def load_cache(self, cache: Cache, path: str) -> None:
        """Go on with a cache that was kept, by however many ranks."""
        if isinstance(self.model, SplitModel):
            load_cache(self.model, cache, path)
        else:
            cache.load(path)

    def tokens(
        self,
        ids: Sequence[int],
        cache: Cache,
        observer: Observer | None = None,
        progress: Progress = silent,
    ) -> Iterator[int]:
        """Continue what the cache holds and `ids`; wrong parameters are refused at once."""
        if self.source is not None:
            return self.source(ids, self.max_new_tokens, cache)
        return self.model.generate(
            ids,
            self.max_new_tokens,
            cache,
            stop=self.stop,
            observer=observer,
            progress=progress,
            **self.drawing,
        )

    def spelled(self, top: Sequence[tuple[int, float]]) -> list[dict[str, object]]:
        """Tokens and their ln p, for a program to read."""
        return [
            {"id": token, "text": self.tokenizer.decode([token]), "log_prob": ln_p}
            for token, ln_p in top
        ]


def load_speaker(args: Namespace, comm: Comm | None = None) -> Speaker:
    """Load the model that the options name, or a rank's part of it."""
    drawing = {name: getattr(args, name) for name in DRAWING}
    sampler(**drawing)  # before the seconds of a load
    StopStrings(args.stop)
    check_cache(args)
    if args.stream and not (args.json or getattr(args, "prompts", None)):
        raise InputError("--stream prints lines of JSON: it goes with --json")
    if args.fetch:
        fetch_missing(args.model)
    with status(f"preparing {args.model} ({args.arithmetic})"):
        if comm is None:
            model = load(args.model, args.arithmetic, args.backend)
        else:
            model = load_rank(args.model, comm, args.arithmetic, args.backend)
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise TokenizerError(f"{args.model} has no tokenizer.json, which text needs")
    return Speaker(
        model,
        tokenizer,
        stop=frozenset([*model.config.eos_token_id, *tokenizer.eos_ids]),
        max_new_tokens=args.max_new_tokens,
        stop_strings=tuple(args.stop),
        drawing=drawing,
        logprobs=args.logprobs,
    )


@dataclass(frozen=True)
class Said:
    """A token of an answer, as it is told.

    Parameters
    ----------
    id : int
    spelling : str
        Its own.
    text : str
        What can be shown now: a token may end in the middle of a character.
    scores : dict
        ``log_prob`` and ``top``, where they are asked for.
    """

    id: int
    spelling: str
    text: str
    scores: dict[str, Any]


class Silent:
    """Tells nothing while an answer comes."""

    def begin(self) -> None:
        """The prompt has been read."""

    def put(self, token: Said) -> None:
        """A token has come."""

    def end(self, rest: str, figures: dict[str, Any]) -> None:
        """There are no more; `rest` is text that was held back."""


class Streaming(Silent):
    """Prints a line of JSON for each token."""

    def put(self, token: Said) -> None:
        """Print its id, its text, and its scores."""
        print_json({"id": token.id, "text": token.text, **token.scores}, one_line=True)

    def end(self, rest: str, figures: dict[str, Any]) -> None:
        """Print what was held back, if any was."""
        if rest:
            print_json({"id": None, "text": rest}, one_line=True)


class Speaking(Silent):
    """Prints the text as it comes, and a line of figures on standard error.

    Parameters
    ----------
    echo : str
        Printed before the first token.
    """

    def __init__(self, echo: str = "") -> None:
        self.echo = echo
        self._wrapped = wrapping(echo)
        self._told: list[Said] = []

    def begin(self) -> None:
        """Print the echo."""
        print(self.echo, end="", flush=True)

    def put(self, token: Said) -> None:
        """Print its text."""
        self._told.append(token)
        print(self._wrapped.put(token.text), end="", flush=True)

    def end(self, rest: str, figures: dict[str, Any]) -> None:
        """Print what was held back, the scores, and the figures."""
        print(self._wrapped.put(rest) + self._wrapped.rest())
        if any(token.scores for token in self._told):
            print()
            print_table(["token", "ln p", "likeliest"], map(_scored, self._told))
        print_aside(_sentence(figures))


def chosen_voice(args: Namespace, echo: str = "", first: bool = True) -> Silent:
    """Who tells an answer, as the options say; of several ranks only the first does."""
    if not first:
        return Silent()
    if args.stream:
        return Streaming()
    if args.json:
        return Silent()
    return Speaking(echo)


def _scored(token: Said) -> tuple[object, ...]:
    """A row of the table of log-probabilities."""
    top = [f"{_quoted(each['text'])} {each['log_prob']:.3f}" for each in token.scores["top"]]
    return (_quoted(token.spelling), f"{token.scores['log_prob']:.3f}", ", ".join(top))


def _quoted(text: str) -> str:
    """A text in which blanks and ends of lines can be seen."""
    return json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True)
class Answer:
    """What was generated: the text without a stop string, its tokens, and the figures of it."""

    text: str
    ids: list[int]
    figures: dict[str, Any]

    @property
    def ended(self) -> bool:
        """Whether its last id is a stop token."""
        return self.figures["ended_by"] == "end of text"

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C stopped it."""
        return self.figures["ended_by"] == "Ctrl-C"


def answer(
    speaker: Speaker, ids: list[int], cache: Cache, decoder: StreamDecoder, voice: Silent
) -> Answer:
    """Continue `ids`, and tell the text as it comes.

    Parameters
    ----------
    speaker : Speaker
    ids : list of int
        What the cache does not hold yet.
    cache : Cache
    decoder : StreamDecoder
        Spells what is generated.
    voice : Silent, Speaking or Streaming
        Who tells it.
    """
    written: list[str] = []
    scores: list[dict[str, Any]] = []
    stops = StopStrings(speaker.stop_strings)
    new: list[int] = []
    times: list[float] = []  # when each token was there
    interrupted = False
    tokens: Iterator[int] = iter(())
    start = time.perf_counter()
    try:
        with status(f"reading {len(ids)} tokens") as progress:
            tokens = speaker.tokens(ids, cache, _observer(speaker, scores), progress)
            token = next(tokens, None)
        voice.begin()
        while token is not None:
            times.append(time.perf_counter())
            new.append(token)
            written.append(stops.put(decoder.put(token)))
            scored = scores[-1] if scores else {}
            voice.put(Said(token, speaker.tokenizer.decode([token]), written[-1], scored))
            token = None if stops.found else next(tokens, None)
    except KeyboardInterrupt:
        interrupted = True
    first = time.perf_counter()
    if times:
        first = times[0]
    rest = stops.put(decoder.flush()) + stops.rest()
    if isinstance(tokens, Generator):
        tokens.close()  # what a draft guessed and nobody verified leaves the cache
    figures = {
        "prompt_tokens": len(ids),
        "new_tokens": len(new),
        "ended_by": "stop string" if stops.found else _ended_by(speaker, new, interrupted),
        "prefill_seconds": first - start,
        "seconds_per_token": _seconds_per_token(times),
        "peak_memory_bytes": peak_memory(),
        "cache_tokens": cache.seen,
        "cache_bytes": cache.nbytes,
        "full_cache_bytes": cache.seen * speaker.bytes_per_token,
    }
    if speaker.logprobs is not None:
        figures["log_probs"] = [score["log_prob"] for score in scores]
        figures["top"] = [score["top"] for score in scores]
    voice.end(rest, figures)
    return Answer("".join([*written, rest]), new, figures)


def _observer(speaker: Speaker, scores: list[dict[str, Any]]) -> Observer | None:
    """What takes down log-probabilities, where they are asked for."""
    count = speaker.logprobs
    if count is None:
        return None

    def observe(logits: np.ndarray, token: int) -> None:
        top = speaker.spelled(likeliest(logits, count))
        scores.append({"log_prob": log_probability(logits, token), "top": top})

    return observe


def _ended_by(speaker: Speaker, new: Sequence[int], interrupted: bool) -> str:
    if interrupted:
        return "Ctrl-C"
    if new and new[-1] in speaker.stop:
        return "end of text"
    if len(new) < speaker.max_new_tokens:
        return "context full"
    return "length reached"


def _seconds_per_token(times: Sequence[float]) -> float | None:
    """Mean over the tokens after the first, which is the prompt's."""
    if len(times) < 2:
        return None
    return (times[-1] - times[0]) / (len(times) - 1)


def _sentence(figures: dict[str, Any]) -> str:
    """The figures of an answer as one line."""
    new = f"{figures['new_tokens']} new"
    if figures["seconds_per_token"] is not None:
        new += f" at {figures['seconds_per_token']:.3f} s each"
    tokens = f"{figures['cache_tokens']} tokens"
    if figures["cache_bytes"] != figures["full_cache_bytes"]:
        tokens += f"; the full cache: {readable(figures['full_cache_bytes'])}"
    memory = f"cache {readable(figures['cache_bytes'])} ({tokens})"
    if figures["peak_memory_bytes"] is not None:
        memory = f"peak {figures['peak_memory_bytes'] / 1e6:.0f} MB, {memory}"
    return (
        f"[{figures['prompt_tokens']} prompt tokens in {figures['prefill_seconds']:.2f} s, "
        f"{new}, {figures['ended_by']}; {memory}]"
    )
