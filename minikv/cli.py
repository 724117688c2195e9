"""The command ``minikv``: finds what is asked for, runs it, and turns errors into one line."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from . import __version__
from .commands import find_commands
from .commands.output import print_aside
from .errors import InputError, MinikvError
from .extras import require_extra

DESCRIPTION = """\
minikv runs a small language model in plain NumPy. Its decoder is written so that one claim can be
proved and attacked: the residual stream is all the state there is, and the KV cache is redundant,
bit for bit."""
FIRST_SESSION = """\
a first session:
  minikv doctor                         is everything here?
  minikv fetch                          the default model, once (540 MB)
  minikv generate "Once upon a time"    continue a text
  minikv generate --chat "Say hello."   answer a question
  minikv demo                           the claim on one screen
  minikv chat                           talk; Ctrl-D leaves
  minikv inspect                        what the model holds, bytes per token
  minikv fingerprint                    the same digits on every machine
  minikv prove                          the theorems, on random models

Every command has --help with examples, and --json where it prints figures."""


class _Layout(argparse.HelpFormatter):
    """Paragraphs as wide as the terminal, examples as written, and room for commands' names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=18)
        self._action_max_length = 16  # argparse forgets that commands are indented twice

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled = []
        for paragraph in text.split("\n\n"):
            if "\n  " not in paragraph:  # no list of examples
                paragraph = textwrap.fill(paragraph, width, break_on_hyphens=False)
            filled.append(paragraph)
        return "\n\n".join(filled)


class _Parser(argparse.ArgumentParser):
    """Errors like every other error."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", _Layout)
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see  {self.prog} --help")


class _Completion(argparse.Action):
    """Prints what a shell needs to complete commands and options."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        shtab = require_extra("shtab", "shell", "--completion")
        print(shtab.complete(parser, shell=values))
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Command and options; by default those that the process was given.

    Returns
    -------
    int
        Exit code: 0; 2 for input that cannot be used, with one line on standard error; 130 after
        Ctrl-C; 141 where the reader of a pipe has left. A command may have more.
    """
    _show_any_character()
    try:
        code = _run(argv)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        _discard_output()
        return 141
    except (MinikvError, MemoryError, OSError) as error:
        if isinstance(error, OSError):
            _discard_output()
        print_aside(" ".join(["minikv: error:", *_reason(error).splitlines()]))
        return 2


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line, with every command's own."""
    parser = _Parser(prog="minikv", description=DESCRIPTION, epilog=FIRST_SESSION)
    parser.add_argument("--version", action="version", version=f"minikv {__version__}")
    parser.add_argument(
        "--completion",
        action=_Completion,
        choices=("bash", "zsh", "tcsh"),
        metavar="SHELL",
        help='for a shell, as in  eval "$(minikv --completion bash)"  (extra `shell`)',
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in find_commands().items():
        subparser = subparsers.add_parser(
            name,
            help=command.SUMMARY,
            description=command.DESCRIPTION,
            epilog=f"examples:\n{command.EXAMPLES}",
        )
        command.add_arguments(subparser)
        subparser.set_defaults(command=name, run=command.run)
    return parser


def _run(argv: Sequence[str] | None) -> int:
    """Run a command, and let its errors through."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words == ["help"]:
        words = ["--help"]
    elif words[0] == "help":
        words = [words[1], "--help"]
    if not words[0].startswith("-"):
        _expect_command(words[0])
    try:  # what is unknown is told below, in words that know the command
        args, unknown = make_parser().parse_known_args(words)
    except SystemExit as end:  # --help and --version
        return int(end.code or 0)
    if unknown:
        raise InputError(_not_known(args.command, " ".join(unknown)))
    return args.run(args) or 0


def _expect_command(word: str) -> None:
    """Refuse what is no command, and say which one may have been meant."""
    commands = list(find_commands())
    if word in commands:
        return
    near = difflib.get_close_matches(word, commands, n=1)
    meant = "".join(f": did you mean {name}? Or" for name in near) or ","
    raise InputError(f"{word!r:.80} is no command{meant} choose from {', '.join(commands)}")


def _not_known(command: str, words: str) -> str:
    said = f"{words}: not known here"
    if command == "generate" and not words.startswith("-"):
        said += " (a text of several words needs quotes)"
    return f"{said}; see  minikv {command} --help"


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory; a smaller model or --arithmetic float32 takes less"
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        if error.filename:
            return f"{error.filename}: {reason}"
        return reason
    return str(error)


def _show_any_character() -> None:
    """Neither text that a terminal cannot show nor bytes that are no text end the command."""
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _discard_output() -> None:
    """Keep Python from failing once more when it flushes standard output at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
