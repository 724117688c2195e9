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
from .slash import Talk, is_command, obey

SUMMARY = "talk with the model"
DESCRIPTION = """\
A conversation on one KV cache: each turn reads only what is new.
Ctrl-C stops an answer, or leaves at the prompt; Ctrl-D leaves; /help lists what else can be typed.
Needs a model with a chat template, and the extra `chat`."""
EXAMPLES = """\
  minikv chat --temperature 0.5
  minikv chat --cache residual:every --budget 64
  echo 'Why is the sky blue?' | minikv chat --json"""

BLOCK = '"""'


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_answering(parser)
    parser.add_argument("--system", metavar="TEXT", help="instructions for the model")


def run(args: Namespace) -> None:
    """Answer line by line."""
    if args.load_cache and args.system:
        raise InputError("--load-cache goes on with a conversation that has its --system already")
    speaker = load_speaker(args)
    new_cache = functools.partial(chosen_cache, args, speaker.model)

    def begin(system: str | None) -> Conversation:
        return Conversation(speaker.model, system, dict(args.template), new_cache)

    talk = Talk(speaker, begin, args.system)
    if args.load_cache:
        talk.conversation.load(args.load_cache)
    speaker.tokens([0], talk.conversation.cache)  # refuses wrong parameters before it asks
    for line in _lines(asked=sys.stdin.isatty() and not args.json):
        question = line
        if is_command(line):
            question = obey(talk, line)
        if question:
            _reply(talk, question, args.json)
        if talk.over:
            break
    if args.save_cache:
        talk.conversation.save(args.save_cache)


def _reply(talk: Talk, question: str, as_json: bool) -> None:
    """Answer a question."""
    try:
        unread = talk.conversation.ask(question)
    except ContextFull as error:
        print(f"minikv: {error} with /new", file=sys.stderr)
        return
    decoder = StreamDecoder(talk.speaker.tokenizer)
    with quiet_keyboard():
        said = answer(talk.speaker, unread, talk.conversation.cache, decoder, as_json)
    talk.conversation.answer(said.ids, said.ended)
    talk.answers.append(said)
    if as_json:
        print_json({"prompt": question, "text": said.text, "ids": said.ids, **said.figures}, True)


def _lines(asked: bool) -> Iterator[str]:
    """What the user says, until there is no more; `asked` with a prompt.

    What stands between two lines that begin and end with three double quotes is one text.
    """
    prompt = end = ""
    if asked:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (input() edits its line with it)
        print("Ctrl-C stops an answer, Ctrl-D leaves, /help says more.", file=sys.stderr)
        prompt = "\n> "
        end = "\n"
    while True:
        try:
            line = input(prompt)
            if line.startswith(BLOCK):
                line = _block(line.removeprefix(BLOCK))
        except (EOFError, KeyboardInterrupt):
            print(end=end)
            return
        if line.strip():
            yield line


def _block(first: str) -> str:
    """A text of several lines, up to one that ends with three double quotes."""
    lines = [first]
    while not lines[-1].endswith(BLOCK):
        lines.append(input())
    lines[-1] = lines[-1].removesuffix(BLOCK)
    return "\n".join(lines).strip("\n")


@contextlib.contextmanager
def quiet_keyboard() -> Iterator[None]:
    """Keys that are typed during an answer do not show in it; they are read with the next line."""
    if not sys.stdin.isatty():
        yield
        return
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    hushed = list(before)
    hushed[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSANOW, hushed)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
