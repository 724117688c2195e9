"""``minikv chat``: a conversation on one KV cache."""

from __future__ import annotations

import contextlib
import functools
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from ..conversation import ContextFull, Conversation
from ..errors import InputError
from ..tokenizer import StreamDecoder
from .answering import add_answering, answer, load_speaker
from .caching import chosen_cache
from .output import print_json

SUMMARY = "talk with the model"
DESCRIPTION = """\
A conversation on one KV cache: each turn reads only what is new.
Ctrl-C stops an answer, or leaves at the prompt; Ctrl-D leaves; /new starts again.
Needs a model with a chat template, and the extra `chat`."""
EXAMPLES = """\
  minikv chat --temperature 0.5
  minikv chat --cache residual:every --budget 64
  echo 'Why is the sky blue?' | minikv chat --json"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_answering(parser)
    parser.add_argument("--system", metavar="TEXT", help="instructions for the model")


def run(args: Namespace) -> None:
    """Answer line by line."""
    speaker = load_speaker(args)
    variables = dict(args.template)
    if args.load_cache and args.system:
        raise InputError("--load-cache goes on with a conversation that has its --system already")

    def begin() -> Conversation:
        new_cache = functools.partial(chosen_cache, args, speaker.model)
        return Conversation(speaker.model, args.system, variables, new_cache)

    conversation = begin()
    if args.load_cache:
        conversation.load(args.load_cache)
    speaker.tokens([0], conversation.cache)  # refuses wrong parameters before anything is asked
    for line in _lines(asked=sys.stdin.isatty() and not args.json):
        if line.strip() == "/new":
            conversation = begin()
            continue
        if _is_command(line):
            print(f"minikv: {line.strip()} is no command; /new is, Ctrl-D leaves", file=sys.stderr)
            continue
        try:
            unread = conversation.ask(line)
        except ContextFull as error:
            print(f"minikv: {error} with /new", file=sys.stderr)
            continue
        decoder = StreamDecoder(speaker.tokenizer)
        said = answer(speaker, unread, conversation.cache, decoder, args.json)
        text = conversation.answer(said.ids, said.ended)
        if args.json:
            print_json({"prompt": line, "text": text, "ids": said.ids, **said.figures}, True)
    if args.save_cache:
        conversation.save(args.save_cache)


def _lines(asked: bool) -> Iterator[str]:
    """What the user says, until there is no more; `asked` with a prompt."""
    prompt = end = ""
    if asked:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (input() edits its line with it)
        print("Ctrl-C stops an answer, Ctrl-D leaves, /new starts again.", file=sys.stderr)
        prompt = "\n> "
        end = "\n"
    while True:
        try:
            line = input(prompt)
        except (EOFError, KeyboardInterrupt):
            print(end=end)
            return
        if line.strip():
            yield line


def _is_command(line: str) -> bool:
    """Whether it is a mistyped command, not a path or a sentence that begins with a slash."""
    return line[0] == "/" and line[1:].strip().isalpha()
