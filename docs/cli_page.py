"""The page of the command line, made from the parsers that the command line itself uses."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from minikv.cli import make_parser

INTRODUCTION = """\
# Command line

`minikv COMMAND`, or `./run COMMAND` from a checkout, which sets everything up first. This page is
made from the commands' own parsers: it says what `minikv COMMAND --help` says.

An error is one line on standard error. The exit code is 0; 2 for input that cannot be used; 130
after Ctrl-C; 141 where the reader of a pipe has left.
"""


def plain(words: str) -> str:
    """Words that stay as they are in Markdown; what is in backticks stays code.

    Examples
    --------
    >>> plain("a * b, `x * y`")
    'a \\\\* b, `x * y`'
    """
    pieces = words.split("`")
    if len(pieces) % 2 == 0:  # a backtick alone
        pieces = [words]
    outside = [re.sub(r"([\\`*_{}\[\]<>#$|~])", r"\\\1", piece) for piece in pieces[::2]]
    pieces[::2] = outside
    return "`".join(pieces)


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands, by name."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= action.choices
    return found


def summaries(parser: argparse.ArgumentParser) -> dict[str, str]:
    """A line about each command."""
    return {
        choice.dest: choice.help or ""
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for choice in action._choices_actions
    }


def value(action: argparse.Action) -> str:
    """What follows an option, as its help shows it."""
    if action.nargs == 0:
        return ""
    shown = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    if action.choices is not None and action.metavar is None:
        shown = "{" + ",".join(map(str, action.choices)) + "}"
    return " ".join(shown) if isinstance(shown, tuple) else str(shown)


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Each argument and option: its names, and what its help says."""
    formatter = parser._get_formatter()
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or "--help" in action.option_strings:
            continue
        names = [f"{name} {value(action)}".strip() for name in action.option_strings]
        yield "```{option} " + (", ".join(names) or value(action))
        if action.help:
            yield plain(" ".join(formatter._expand_help(action).split()))
        yield "```\n"


def console(words: str) -> str:
    """Lines of a terminal."""
    return f"```console\n{words.strip()}\n```\n"


def section(name: str, parser: argparse.ArgumentParser, summary: str) -> str:
    """What a command is for, examples, and its options."""
    description = plain(" ".join((parser.description or "").split()))
    examples = (parser.epilog or "").removeprefix("examples:\n")
    lines = [f"## {name}\n", f"*{plain(summary)}*\n", description + "\n"]
    if examples:
        lines.append(console("\n".join(line.strip() for line in examples.splitlines())))
    lines += [f"```{{program}} minikv {name}\n```\n", *options(parser)]
    return "\n".join(lines)


def page() -> str:
    """The page as Markdown."""
    parser = make_parser()
    about = summaries(parser)
    lines = [INTRODUCTION, "| command | |", "|---|---|"]
    lines += [f"| [{name}](#{name}) | {plain(words)} |" for name, words in about.items()]
    lines.append("")
    lines += [section(name, sub, about[name]) for name, sub in commands(parser).items()]
    return "\n".join(lines)
