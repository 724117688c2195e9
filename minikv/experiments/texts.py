"""The texts that the experiments read."""

from __future__ import annotations

import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from ..errors import InputError

_DATA = resources.files("minikv") / "data"


def read_prompts(path: str | Path | Traversable | None = None) -> dict[str, str]:
    """Texts by name from a file in which a line ``=== name`` starts each; ours by default.

    Ours are eight texts written for minikv, of 250 to 400 tokens: story, code, translation,
    arithmetic, chat, facts, recipe, letter. Each breaks off where what follows needs its beginning.
    """
    source = _DATA / "prompts.txt"
    if path:
        source = path if isinstance(path, Traversable) else Path(path)
    try:
        text = source.read_text(encoding="utf-8")
    except ValueError:
        raise InputError(f"{path} is not UTF-8 text") from None
    before, *parts = re.split(r"^=== *(.*)\n", text, flags=re.MULTILINE)
    if before.strip() or not parts:
        raise InputError(f"{path} does not begin with a line '=== name', which starts each prompt")
    return {name.strip(): body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def read_passages() -> dict[str, str]:
    """Five passages of some 1,100 tokens by name, public domain, a chapter each.

    Charles Darwin, *On the Origin of Species*, first edition, London 1859: the beginnings of
    chapters I, III, VII, X and XIV, from their first paragraph on, lines joined.
    """
    return read_prompts(_DATA / "passages.txt")


def read_conversation(name: str = "conversation") -> list[str]:
    """A script of 20 user turns: ours about a garden, or ``"conversation-france"``.

    The second is on the topics that the paper names, France and what is to be seen there.
    """
    return (_DATA / f"{name}.txt").read_text(encoding="utf-8").splitlines()
