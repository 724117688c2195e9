"""From a name to a target: a Python file, a model folder, a GGUF file, a server, or minikv itself.

A new sort of target is a file here with a function that takes what stands behind the colon, and
its line in `SORTS`. What a sort needs is imported when it is asked for.
"""

from __future__ import annotations

from importlib import import_module

from ...errors import InputError

SORTS = {
    "transformers": "transformers_folder",
    "llama.cpp": "llama_cpp",
    "openai": "openai_server",
    "minikv": "minikv_model",
}
"""Words before a colon, and the module of each; anything else is a Python file and a name in it."""


def find_target(text: str, dtype: str | None = None) -> object:
    """The target that a user names.

    Parameters
    ----------
    text : str
        ``module.py:name``, ``transformers:FOLDER``, ``llama.cpp:FILE.gguf``,
        ``openai:http://127.0.0.1:PORT`` or ``minikv:NAME``.
    dtype : str, optional
        In which it is to compute, where it has a choice: ``"bfloat16"``, and for minikv an
        arithmetic.

    Raises
    ------
    InputError
        If it cannot be found, in one line.
    """
    sort, colon, rest = text.partition(":")
    if not colon or not rest:
        choices = ", ".join(f"{name}:..." for name in SORTS)
        raise InputError(f"the target is {text!r:.80}, expected FILE.py:NAME, {choices}")
    module = import_module(f"{__name__}.{SORTS.get(sort, 'python_file')}")
    if sort in SORTS:
        return module.target(rest, dtype)
    if dtype is not None:
        raise InputError(f"a dtype is given for {text:.80}, which says its own")
    file, _, name = text.rpartition(":")
    return module.target(file, name)
