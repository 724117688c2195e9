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
from .answering import add_answering, answer, chosen_voice, load_speaker
from .caching import chosen_cache
from .editing import Reader, history_file, reader
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
    parser.add_argument(
        "--no-history", action="store_true", help="keep no file of the lines that are typed"
    )


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
    for line in _lines(_reader(args)):
        question = line
        if is_command(line):
            question = obey(talk, line)
        if question:
            _reply(talk, question, args)
        if talk.over:
            break
    if args.save_cache:
        talk.conversation.save(args.save_cache)


def _reply(talk: Talk, question: str, args: Namespace) -> None:
    """Answer a question."""
    try:
        unread = talk.conversation.ask(question)
    except ContextFull as error:
        print(f"minikv: {error} with /new", file=sys.stderr)
        return
    decoder = StreamDecoder(talk.speaker.tokenizer)
    with quiet_keyboard():
        said = answer(talk.speaker, unread, talk.conversation.cache, decoder, chosen_voice(args))
    talk.conversation.answer(said.ids, said.ended)
    talk.answers.append(said)
    if args.json:
        print_json({"prompt": question, "text": said.text, "ids": said.ids, **said.figures}, True)


def _reader(args: Namespace) -> Reader | None:
    """What reads from a terminal; None where the lines come from a file or a program."""
    if args.json or not sys.stdin.isatty():
        return None
    if args.no_history:
        return reader(None)
    return reader(history_file())


def _lines(read: Reader | None) -> Iterator[str]:
    """What the user says, until there is no more; with a prompt where a `Reader` is given.

    What stands between two lines that begin and end with three double quotes is one text.
    """
    prompt = end = ""
    if read:
        print("Ctrl-C stops an answer, Ctrl-D leaves, /help says more.", file=sys.stderr)
        prompt = "\n> "
        end = "\n"
    read = read or input
    while True:
        try:
            line = read(prompt)
            if line.startswith(BLOCK):
                line = _block(line.removeprefix(BLOCK), read)
        except (EOFError, KeyboardInterrupt):
            print(end=end)
            return
        if line.strip():
            yield line


def _block(first: str, read: Reader) -> str:
    """A text of several lines, up to one that ends with three double quotes."""
    lines = [first]
    while not lines[-1].endswith(BLOCK):
        lines.append(read(""))
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
