"""What ``generate`` and ``chat`` share: their options, the model, and an answer as it comes."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..caches import Cache
from ..completion import StopStrings
from ..errors import TokenizerError
from ..generation import sampler
from ..model import Model, load
from ..parallel.build import SplitModel, load_rank
from ..parallel.comm import Comm
from ..parallel.state import load_cache, save_cache
from ..progress import status
from ..tokenizer import StreamDecoder, Tokenizer
from .caching import add_cache, check_cache
from .fetch import fetch_missing
from .options import add_arithmetic, add_backend, add_json, add_model, add_template
from .output import peak_memory, readable, wrapping

DRAWING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
"""The options of a draw, by the names that `Model.generate` has for them."""


def add_answering(parser: ArgumentParser) -> None:
    """Add the options of the model and of drawing tokens."""
    add_model(parser)
    add_arithmetic(parser, "float32")
    add_backend(parser)
    parser.add_argument(
        "--max-new-tokens", type=int, default=128, metavar="N", help="default: %(default)s"
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
    add_template(parser)
    parser.add_argument("--fetch", action="store_true", help="fetch the model where it is missing")
    add_json(parser, "text and figures")
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
    source : callable, optional
        ``source(ids, max_new_tokens, cache)`` continues in place of `Model.generate`.
    """

    model: Model
    tokenizer: Tokenizer
    stop: frozenset[int]
    max_new_tokens: int
    stop_strings: tuple[str, ...]
    drawing: dict[str, Any]
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

    def tokens(self, ids: Sequence[int], cache: Cache) -> Iterator[int]:
        """Continue what the cache holds and `ids`; wrong parameters are refused at once."""
        if self.source is not None:
            return self.source(ids, self.max_new_tokens, cache)
        return self.model.generate(ids, self.max_new_tokens, cache, stop=self.stop, **self.drawing)


def load_speaker(args: Namespace, comm: Comm | None = None) -> Speaker:
    """Load the model that the options name, or a rank's part of it."""
    drawing = {name: getattr(args, name) for name in DRAWING}
    sampler(**drawing)  # before the seconds of a load
    StopStrings(args.stop)
    check_cache(args)
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
    )


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
    speaker: Speaker,
    ids: list[int],
    cache: Cache,
    decoder: StreamDecoder,
    quiet: bool = False,
    echo: str = "",
) -> Answer:
    """Continue `ids` and print the text as it comes, and a line of figures on standard error.

    Parameters
    ----------
    speaker : Speaker
    ids : list of int
        What the cache does not hold yet.
    cache : Cache
    decoder : StreamDecoder
        Spells what is generated.
    quiet : bool
        Print nothing.
    echo : str
        Printed before the first token.
    """

    written: list[str] = []
    wrapped = wrapping(echo)

    def write(text: str) -> None:
        written.append(text)
        if not quiet:
            print(wrapped.put(text), end="", flush=True)

    stops = StopStrings(speaker.stop_strings)
    new: list[int] = []
    times: list[float] = []  # when each token was there
    interrupted = False
    tokens = speaker.tokens(ids, cache)
    start = time.perf_counter()
    try:
        with status(f"reading {len(ids)} tokens"):
            token = next(tokens, None)
        if not quiet:
            print(echo, end="", flush=True)
        while token is not None:
            times.append(time.perf_counter())
            new.append(token)
            write(stops.put(decoder.put(token)))
            token = None if stops.found else next(tokens, None)
    except KeyboardInterrupt:
        interrupted = True
    first = time.perf_counter()
    if times:
        first = times[0]
    write(stops.put(decoder.flush()) + stops.rest())
    if not quiet:
        print(wrapped.rest())
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
    if not quiet:
        print(_sentence(figures), file=sys.stderr)
    return Answer("".join(written), new, figures)


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
