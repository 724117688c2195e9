"""Text to token ids and back, through the ``tokenizers`` package, and the model's chat template."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from .errors import TokenizerError
from .extras import require_extra


@dataclass(frozen=True, repr=False)
class Tokenizer:
    """A model's vocabulary, special tokens and chat template; made by `from_folder`.

    Attributes
    ----------
    backend : tokenizers.Tokenizer
        Splits and joins; read from ``tokenizer.json``.
    special_tokens : dict of str to str
        ``bos_token``, ``eos_token`` and so on, as ``tokenizer_config.json`` names them.
    eos_ids : tuple of int
        Tokens that end a text.
    chat_template : str or None
        Jinja source, where the model ships one.
    """

    backend: tokenizers.Tokenizer
    special_tokens: Mapping[str, str]
    eos_ids: tuple[int, ...]
    chat_template: str | None

    def __repr__(self) -> str:
        return f"<Tokenizer: {self.backend.get_vocab_size():,} tokens>"

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """Read ``tokenizer.json`` and what lies beside it.

        ``tokenizer_config.json``, ``generation_config.json`` and ``chat_template.jinja`` are
        used where present.

        Raises
        ------
        TokenizerError
            If a file is missing or damaged; the message names it.
        """
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise TokenizerError(f"{path} does not exist; a model folder has a tokenizer.json")
        with _package(f"{path} cannot be used"):
            backend = tokenizers.Tokenizer.from_file(str(path))
            backend.no_truncation()  # settings of a batch in training, which would cut a prompt
            backend.no_padding()
        settings = _read_json(folder / "tokenizer_config.json")
        special = {
            key: _content(value)
            for key, value in settings.items()
            if key.endswith("_token") and _content(value)
        }
        template = _read_text(folder / "chat_template.jinja") or _template(settings)
        stops: list[Any] = [backend.token_to_id(special.get("eos_token", ""))]
        for name in ("generation_config.json", "config.json"):
            given = _read_json(folder / name).get("eos_token_id")
            stops += given if isinstance(given, list) else [given]
        eos = dict.fromkeys(token for token in stops if type(token) is int)
        return cls(backend, special, tuple(eos), template)

    @property
    def vocab_size(self) -> int:
        """How many tokens there are, special ones included."""
        return self.backend.get_vocab_size()

    def encode(self, text: str, add_special: bool = True) -> list[int]:
        """Token ids of a text; special tokens written out in it are recognised.

        Parameters
        ----------
        text : str
            Any text that UTF-8 can hold.
        add_special : bool
            Add what the model puts around every text, such as a token that starts it. A chat
            template writes these itself: encode its output with ``add_special=False``.

        Raises
        ------
        TokenizerError
            If `text` is not a string or holds half of a surrogate pair.
        """
        if not isinstance(text, str):
            raise TokenizerError(f"text is a {type(text).__name__}, expected a string")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"text holds half of a surrogate pair at character {error.start}, "
                "expected text that UTF-8 can hold"
            ) from None
        with _package("tokenizer.json cannot encode this text"):
            return self.backend.encode(text, add_special_tokens=add_special).ids

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of token ids; bytes that are no UTF-8 become U+FFFD.

        An id without a token is no text: models pad their vocabularies, and may choose such an id.

        Raises
        ------
        TokenizerError
            If an id is not a whole number from 0 up.
        """
        checked = [self._checked(token) for token in ids]
        with _package("tokenizer.json cannot decode these ids"):
            return self.backend.decode(checked, skip_special)

    def stream(self, ids: Iterable[int], skip_special: bool = True) -> Iterator[str]:
        """Pieces of text as their tokens arrive; joined, they are ``decode`` of all the ids."""
        decoder = StreamDecoder(self, skip_special)
        yield from filter(None, map(decoder.put, ids))
        yield from filter(None, [decoder.flush()])

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as the text that the model was trained on.

        Parameters
        ----------
        messages : sequence of mappings
            Each with ``role`` (``"system"``, ``"user"`` or ``"assistant"``) and ``content``.
        add_generation_prompt : bool
            End with what starts the assistant's turn.

        Raises
        ------
        TokenizerError
            If the model ships no template, or the template cannot be used with `messages`.
        MissingExtraError
            If jinja2 is not installed.
        """
        if self.chat_template is None:
            raise TokenizerError("the model ships no chat template: use a chat model, or raw text")
        for message in messages:
            if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
                raise TokenizerError(
                    f"a message is {message!r:.80}, expected a mapping with 'role' and 'content'"
                )
        require_extra("jinja2", "chat", "a chat template")
        import jinja2.sandbox

        # The names below are what transformers offers to templates, and templates rely on.
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        given = {
            **self.special_tokens,
            "messages": list(messages),
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return environment.from_string(self.chat_template).render(given)
        except Exception as error:  # templates run code: types, arithmetic, anything may fail
            raise TokenizerError(f"the model's chat template refused: {error}") from error

    def _checked(self, token: Any) -> int:
        try:
            token = token.__index__()
        except AttributeError:
            raise TokenizerError(f"token id is {token!r:.80}, expected a whole number") from None
        if not 0 <= token < 2**32:
            raise TokenizerError(f"token id {token} is outside the vocabulary of {self.vocab_size}")
        return token


class StreamDecoder:
    """Turns tokens into text as they come, and never emits half a character.

    A character outside ASCII may be spread over several tokens; what has come of it is held back
    until it is complete. New tokens are decoded together with those of the last piece, since some
    decoders treat the first token of a text differently. A run of byte tokens (``<0xC3>``) is held
    back until it ends: one bad byte turns all of its run into U+FFFD.

    Parameters
    ----------
    tokenizer : Tokenizer
    skip_special : bool
        Leave special tokens out of the text.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._emitted: list[int] = []  # tokens of the last piece
        self._held: list[int] = []  # tokens since

    def put(self, token: int) -> str:
        """Take a token; return the text that is now complete, which may be empty."""
        text = self._text([*self._held, token])
        self._held.append(token)
        if not text or text.endswith("\ufffd") or self._may_join_bytes(token):
            return ""
        self._emitted, self._held = self._held, []
        return text

    def flush(self) -> str:
        """End the text; an incomplete character comes out as U+FFFD."""
        text = self._text(self._held)
        self._emitted, self._held = [], []
        return text

    def _may_join_bytes(self, token: int) -> bool:
        """Whether byte tokens before and after this one may be one run."""
        piece = self._tokenizer.backend.id_to_token(token) or ""
        silent = not self._tokenizer.decode([token], self._skip_special)
        return silent or re.fullmatch("<0x[0-9A-F]{2}>", piece) is not None

    def _text(self, new: list[int]) -> str:
        before = self._tokenizer.decode(self._emitted, self._skip_special)
        return self._tokenizer.decode(self._emitted + new, self._skip_special)[len(before) :]


@contextlib.contextmanager
def _package(complaint: str) -> Iterator[None]:
    """What the package raises as a `TokenizerError`: plain exceptions, and panics of its Rust."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200]
        raise TokenizerError(f"{complaint}: {reason}; fetch the model again") from None


def _read_text(path: Path) -> str:
    """A file's text; empty where there is no such file."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{path} cannot be used: {error}") from None


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file."""
    try:
        content = json.loads(_read_text(path) or "{}")
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path} cannot be used: {error}") from None
    if not isinstance(content, dict):
        raise TokenizerError(f"{path} holds a {type(content).__name__}, expected an object")
    return content


def _content(value: Any) -> str:
    """A special token's text; it is written plain, or as an object with options."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else ""


def _template(settings: Mapping[str, Any]) -> str | None:
    """The chat template of ``tokenizer_config.json``: a string, or a list of named ones."""
    given = settings.get("chat_template")
    if isinstance(given, list):
        named = [entry for entry in given if isinstance(entry, dict)]
        given = next((x.get("template") for x in named if x.get("name") == "default"), None)
    return given if isinstance(given, str) else None


def _raise_exception(message: str) -> None:
    raise ValueError(message)


def _to_json(value: Any, indent: int | None = None) -> str:
    # jinja2's own filter escapes for HTML, which a prompt must not
    return json.dumps(value, ensure_ascii=False, indent=indent)
