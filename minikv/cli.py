"""The command ``minikv``: finds the commands, runs one, and turns errors into one line.

A command's module has a function ``add_parser(subparsers)``, which adds its parser and sets
``run``: a function from the parsed arguments to an exit code (None for 0). What is slow to import,
the module imports inside ``run``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from .errors import InputError, MinikvError

COMMANDS = (
    "minikv.commands.text",
    "minikv.commands.models",
    "minikv.commands.experiments",
    "minikv.commands.fingerprint",
    "minikv.commands.prove",
)
"""Modules that add commands, in the order of ``minikv --help``."""

DESCRIPTION = """\
minikv runs a small language model in plain NumPy. Its decoder is written so that one claim can be
proved and attacked: the residual stream is all the state there is, and the KV cache is redundant,
bit for bit."""
FIRST_SESSION = """\
a first session:
  minikv fetch                                        the default model, once (540 MB on disk)
  minikv generate "The capital of France is"          continue a text
  minikv generate --chat "Name three colours."        answer a question
  minikv chat                                         talk; Ctrl-D leaves
  minikv inspect                                      what the model holds, and bytes per token
  minikv fingerprint                                  the same digits on every machine
  minikv prove                                        the eleven theorems, on random models

Every command has --help with examples, and --json where it prints figures."""


class _Layout(argparse.RawDescriptionHelpFormatter):
    """Descriptions and examples as written, and room for the commands' names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = 16  # argparse forgets that commands are indented twice


class _Parser(argparse.ArgumentParser):
    """Errors like every other error."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", _Layout)
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> Any:
        raise InputError(f"{message}; see  {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns
    -------
    int
        Exit code: 0; 2 for input that cannot be used, with one line on standard error; 130 after
        Ctrl-C; 141 where the reader of a pipe has left. A command may have more.
    """
    for stream in (sys.stdin, sys.stdout):  # text that a terminal cannot show must not end it
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        try:
            args, extra = _parser().parse_known_args(argv)
            if extra:
                name, said = args.run.__name__.lstrip("_"), f"{' '.join(extra)}: not known here"
                if name == "generate" and not said.startswith("-"):
                    said += " (a text of several words needs quotes)"
                raise InputError(f"{said}; see  minikv {name} --help")
            code = args.run(args) or 0
        except SystemExit as end:  # --help and --version
            code = int(end.code or 0)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        _discard_output()
        return 141
    except MinikvError as error:
        reason = str(error)
    except MemoryError:
        reason = "not enough memory; a smaller model or --arithmetic float32 takes less"
    except OSError as error:
        reason = error.strerror or str(error)
        reason = f"{error.filename}: {reason}" if error.filename else reason
        _discard_output()
    print("minikv: error:", " ".join(reason.splitlines()), file=sys.stderr)
    return 2


def _discard_output() -> None:
    """Keep Python from failing once more when it flushes standard output at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    from . import __version__

    parser = _Parser(prog="minikv", description=DESCRIPTION, epilog=FIRST_SESSION)
    parser.add_argument("--version", action="version", version=f"minikv {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in COMMANDS:
        importlib.import_module(module).add_parser(subparsers)
    return parser
