"""``minikv generate`` and ``minikv chat``: text from a model, as it comes."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import TokenizerError
from . import peak_memory, print_json, status
from .models import fetch_missing

if TYPE_CHECKING:
    from ..caches import Cache
    from ..model import Model
    from ..tokenizer import Tokenizer


def add_parser(subparsers: Any) -> None:
    """Add both commands."""
    from ..weights.fetch import DEFAULT

    common = argparse.ArgumentParser(add_help=False)

    for flag, kind, default, letter, text in (
        (
            "--model",
            str,
            DEFAULT,
            "NAME",
            "a name that `minikv fetch --list` shows, or a folder (default: %(default)s)",
        ),
        (
            "--arithmetic",
            str,
            "float32",
            "A",
            "float32 (fast; default), float64, or exact (the same bits on every machine)",
        ),
        (
            "--backend",
            str,
            "numpy",
            "B",
            "numpy (default), numba (compiled; exact and float32), torch, cupy (GPU) or jax",
        ),
        ("--max-new-tokens", int, 128, "N", "default: %(default)s"),
        ("--temperature", float, 0.0, "T", "0: the likeliest token (default); above 0: drawn"),
        ("--top-k", int, None, "K", "draw among the K likeliest tokens (with --temperature)"),
        ("--top-p", float, None, "P", "draw among the likeliest that reach P together (likewise)"),
        ("--seed", int, None, "S", "of the draws (likewise)"),
    ):
        common.add_argument(flag, type=kind, default=default, metavar=letter, help=text)

    common.add_argument("--fetch", action="store_true", help="fetch the model where it is missing")
    common.add_argument("--json", action="store_true", help="print text and figures as JSON")

    parser = subparsers.add_parser(
        "generate",
        parents=[common],
        help="continue a text",
        description="Print PROMPT and its continuation as it comes, and a line of figures on\n"
        "standard error. Without --chat the prompt is continued exactly as it is.",
        epilog='examples:\n  minikv generate "The capital of France is" --max-new-tokens 20\n'
        '  minikv generate --chat "Why is the sky blue?" --temperature 0.7 --seed 1\n'
        "  minikv generate - --json < essay.txt",
    )
    parser.add_argument("prompt", metavar="PROMPT", help="the text; - reads standard input")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--raw",
        dest="chat",
        action="store_false",
        default=False,
        help="continue the prompt as it is (default)",
    )
    mode.add_argument(
        "--chat",
        action="store_true",
        help="answer the prompt, in the model's "
        "chat template (extra `chat`), and print the answer alone",
    )
    parser.set_defaults(run=_generate)

    parser = subparsers.add_parser(
        "chat",
        parents=[common],
        help="talk with the model",
        description="A conversation on one KV cache: each turn reads only what is new.\n"
        "Ctrl-C stops an answer, or leaves at the prompt; Ctrl-D leaves; /new starts again.\n"
        "Needs a model with a chat template, and the extra `chat`.",
        epilog="examples:\n  minikv chat --temperature 0.5\n"
        "  echo 'Why is the sky blue?' | minikv chat --json",
    )
    parser.add_argument("--system", metavar="TEXT", help="instructions for the model")
    parser.set_defaults(run=_chat)


def _generate(args: argparse.Namespace) -> int:
    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
    model, tokenizer, generate = _load(args)
    text = prompt
    if args.chat:
        text = tokenizer.apply_chat_template([{"role": "user", "content": prompt}])
    ids = tokenizer.encode(text, add_special=not args.chat)
    echo = "" if args.chat else prompt
    new, figures = _answer(tokenizer, model.new_cache(), ids, generate, args.json, echo)
    if args.json:
        print_json(
            {
                "model": args.model,
                "arithmetic": args.arithmetic,
                "chat": args.chat,
                "prompt": prompt,
                "text": tokenizer.decode(new),
                "ids": new,
                **figures,
            }
        )
    return 130 if figures["ended_by"] == "Ctrl-C" else 0


def _chat(args: argparse.Namespace) -> None:
    model, tokenizer, generate = _load(args)
    context, asked = model.config.max_position_embeddings, sys.stdin.isatty() and not args.json
    start = [{"role": "system", "content": args.system}] if args.system else []
    # What can be refused is refused before asking.
    tokenizer.apply_chat_template([*start, {"role": "user", "content": ""}])
    generate([0])
    if asked:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (input() edits its line with it)
        print("Ctrl-C stops an answer, Ctrl-D leaves, /new starts again.", file=sys.stderr)
    cache, messages = model.new_cache(), start
    ids: list[int] = []  # the conversation; the cache holds all of it but the end
    spelled = ""  # and as text
    while True:
        try:
            line = input("\n> " if asked else "")
        except (EOFError, KeyboardInterrupt):
            print(end="\n" if asked else "")
            return
        if not line.strip():
            continue
        if line.strip() == "/new":
            cache, messages, ids, spelled = model.new_cache(), start, [], ""
            continue
        if line[0] == "/" and line[1:].strip().isalpha():
            print(f"minikv: {line.strip()} is no command; /new is, Ctrl-D leaves", file=sys.stderr)
            continue
        asking = [*messages, {"role": "user", "content": line}]
        text = tokenizer.apply_chat_template(asking)
        if not text.startswith(spelled):  # the template rewrites earlier turns: read all again
            cache, ids, spelled = model.new_cache(), [], ""
        more = tokenizer.encode(text[len(spelled) :], add_special=False)
        if (length := len(ids) + len(more)) >= context:
            print(
                f"minikv: with this the conversation has {length} tokens, the context is "
                f"{context}: ask less, or start again with /new",
                file=sys.stderr,
            )
            continue
        ids += more
        new, figures = _answer(tokenizer, cache, ids[cache.seen :], generate, args.json)
        ids += new
        spelled = text + tokenizer.decode(new, skip_special=False)
        ended = figures["ended_by"] == "end of text"
        answer = tokenizer.decode(new[:-1] if ended else new, skip_special=False)
        messages = [*asking, {"role": "assistant", "content": answer}]
        if args.json:
            print_json({"prompt": line, "text": answer, "ids": new, **figures}, one_line=True)


def _load(args: argparse.Namespace) -> tuple[Model, Tokenizer, partial[Iterator[int]]]:
    """The model, its tokenizer, and `Model.generate` with the parameters given."""
    from .. import load
    from ..generation import sampler

    sampler(args.temperature, args.top_k, args.top_p, args.seed)  # before the seconds of a load
    if args.fetch:
        fetch_missing(args.model)
    with status(f"preparing {args.model} ({args.arithmetic})"):
        model = load(args.model, args.arithmetic, args.backend)
    if (tokenizer := model.tokenizer) is None:
        raise TokenizerError(f"{args.model} has no tokenizer.json, which text needs")
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "seed")
    settings = {name: getattr(args, name) for name in names}
    stop = {*model.config.eos_token_id, *tokenizer.eos_ids}
    return model, tokenizer, partial(model.generate, **settings, stop=stop)


def _answer(
    tokenizer: Tokenizer,
    cache: Cache,
    ids: list[int],
    generate: partial[Iterator[int]],
    silent: bool,
    echo: str = "",
) -> tuple[list[int], dict[str, Any]]:
    """Continue `ids` and show the text as it comes; returns the new ids and the figures."""
    from ..tokenizer import StreamDecoder

    def write(text: str) -> None:
        if not silent:
            print(text, end="", flush=True)

    tokens = generate(ids, cache=cache)
    decoder, new, ended_by = StreamDecoder(tokenizer), list[int](), "length reached"
    start = first = last = time.perf_counter()
    try:
        try:
            with status(f"reading {len(ids)} tokens"):
                token = next(tokens, None)
        finally:
            first = last = time.perf_counter()
        write(echo)
        while token is not None:
            new.append(token)
            write(decoder.put(token))
            token = next(tokens, None)
            last = time.perf_counter()
        if new and new[-1] in generate.keywords["stop"]:
            ended_by = "end of text"
        elif len(new) < generate.keywords["max_new_tokens"]:
            ended_by = "context full"
    except KeyboardInterrupt:
        ended_by = "Ctrl-C"
    write(decoder.flush() + "\n")
    figures = {
        "prompt_tokens": len(ids),
        "new_tokens": len(new),
        "ended_by": ended_by,
        "prefill_seconds": first - start,
        "seconds_per_token": (last - first) / (len(new) - 1) if len(new) > 1 else None,
        "peak_memory_bytes": peak_memory(),
        "cache_tokens": cache.seen,
        "cache_bytes": cache.nbytes,
    }
    if not silent:
        print(_sentence(figures), file=sys.stderr)
    return new, figures


def _sentence(figures: dict[str, Any]) -> str:
    """The figures of a run as one line."""
    each, peak = figures["seconds_per_token"], figures["peak_memory_bytes"]
    return (
        f"[{figures['prompt_tokens']} prompt tokens in {figures['prefill_seconds']:.2f} s, "
        f"{figures['new_tokens']} new"
        + (f" at {each:.3f} s each" if each is not None else "")
        + f", {figures['ended_by']}; "
        + (f"peak {peak / 1e6:.0f} MB, " if peak is not None else "")
        + f"cache {figures['cache_bytes'] / 1e6:.1f} MB ({figures['cache_tokens']} tokens)]"
    )
