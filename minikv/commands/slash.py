"""What can be typed in a chat besides questions: ``/help``, ``/undo`` and the like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ..conversation import Conversation
from ..errors import InputError, MinikvError
from ..generation import sampler
from .answering import Answer, Speaker
from .output import print_aside, readable


@dataclass
class Talk:
    """A chat: who answers, the conversation, and how to begin another.

    Parameters
    ----------
    speaker : Speaker
    begin : callable
        Makes an empty conversation with instructions.
    system : str, optional
        The instructions.
    answers : list of Answer
        Those that were given.
    again : str
        A question to put once more; empty if none.
    over : bool
        Whether to leave.
    """

    speaker: Speaker
    begin: Callable[[str | None], Conversation]
    system: str | None = None
    answers: list[Answer] = field(default_factory=list)
    again: str = ""
    over: bool = False

    def __post_init__(self) -> None:
        self.conversation = self.begin(self.system)


def new(talk: Talk, rest: str) -> str:
    """Begin again."""
    talk.conversation = talk.begin(talk.system)
    return ""


def system(talk: Talk, rest: str) -> str:
    """TEXT: begin again with other instructions; without TEXT, show them."""
    if not rest:
        return talk.system or "no instructions"
    talk.system = rest
    return new(talk, rest)


def undo(talk: Talk, rest: str) -> str:
    """Take the last question and its answer back."""
    return f"taken back: {talk.conversation.undo()}"


def retry(talk: Talk, rest: str) -> str:
    """Put the last question again; drawn answers differ (see /set)."""
    talk.again = talk.conversation.undo()
    return ""


def set_option(talk: Talk, rest: str) -> str:
    """NAME VALUE: temperature, max_new_tokens and others; without, show them."""
    settings = {"max_new_tokens": talk.speaker.max_new_tokens, **talk.speaker.drawing}
    if not rest:
        return ", ".join(f"{name} {value}" for name, value in settings.items())
    name, _, told = rest.partition(" ")
    if name not in settings:
        raise InputError(f"/set {name}: expected one of {', '.join(settings)}")
    settings[name] = _number(name, told.strip())
    count = settings.pop("max_new_tokens")
    sampler(**settings)  # refuses what does not go together
    if not isinstance(count, int) or count < 1:
        raise InputError(f"max_new_tokens is {count!r}, expected a whole number from 1 up")
    talk.speaker = replace(talk.speaker, max_new_tokens=count, drawing=settings)
    return ""


def _number(name: str, text: str) -> float | int | None:
    """A value of ``/set``; ``none`` where an option is to be off."""
    if text.lower() == "none":
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise InputError(f"/set {name} {text}: expected a number, or none") from None


def save(talk: Talk, rest: str) -> str:
    """FILE: keep the conversation and its cache."""
    talk.conversation.save(_file("save", rest))
    return f"wrote {rest}"


def load(talk: Talk, rest: str) -> str:
    """FILE: go on with a conversation that was kept."""
    talk.conversation.load(_file("load", rest))
    return f"{len(talk.conversation.messages)} messages, {len(talk.conversation.ids)} tokens"


def _file(name: str, rest: str) -> str:
    if not rest:
        raise InputError(f"/{name} needs the name of a file")
    return rest


def stats(talk: Talk, rest: str) -> str:
    """How much was said, how fast, and what the cache holds."""
    cache = talk.conversation.cache
    tokens = sum(len(said.ids) for said in talk.answers)
    seconds = [said.figures["seconds_per_token"] for said in talk.answers]
    each = [value for value in seconds if value is not None]
    speed = f" at {sum(each) / len(each):.3f} s each" if each else ""
    full = readable(cache.seen * talk.speaker.bytes_per_token)
    held = f"cache {readable(cache.nbytes)} ({cache.seen} tokens; the full cache: {full})"
    return f"{len(talk.answers)} answers, {tokens} tokens{speed}; {held}"


def bye(talk: Talk, rest: str) -> str:
    """Leave; Ctrl-D does too."""
    talk.over = True
    return ""


def show_help(talk: Talk, rest: str) -> str:
    """This list."""
    lines = [f"/{name:<7} {(call.__doc__ or '').strip()}" for name, call in COMMANDS.items()]
    return "\n".join([*lines, 'A text of several lines begins and ends with """.'])


COMMANDS: dict[str, Callable[[Talk, str], str]] = {
    "help": show_help,
    "new": new,
    "system": system,
    "set": set_option,
    "retry": retry,
    "undo": undo,
    "save": save,
    "load": load,
    "stats": stats,
    "bye": bye,
}
"""What is typed behind the slash; the first line of the docstring is its line of ``/help``."""


def is_command(line: str) -> bool:
    """Whether it is a command or a mistyped one, not a path or a sentence behind a slash."""
    word = line.split(maxsplit=1)[0]
    return word[1:] in COMMANDS or (word[0] == "/" and line[1:].strip().isalpha())


def obey(talk: Talk, line: str) -> str:
    """Do what a line says, tell on standard error what came of it; a question to put, if any."""
    word, _, rest = line.strip()[1:].partition(" ")
    try:
        if word not in COMMANDS:
            raise InputError(f"/{word} is no command, see /help")
        said = COMMANDS[word](talk, rest.strip())
    except MinikvError as error:
        said = f"minikv: {error}"
    if said:
        print_aside(said)
    question = talk.again
    talk.again = ""
    return question
