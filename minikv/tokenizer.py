"""Text to token ids and back, through the ``tokenizers`` package, and the model's chat template."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import TokenizerError
from .extras import require, require_extra

if TYPE_CHECKING:
    import tokenizers

_STANDARD = tuple(f"{kind}_token" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
# Classes of transformers 4 that put a bos_token before every text because their settings say so,
# whatever tokenizer.json says.
_ADD_BY_SETTING = ("Llama", "CodeLlama", "Gemma", "Cohere")


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
        """Read ``tokenizer.json`` and what lies beside it, as transformers does.

        Special and added tokens may stand in ``tokenizer_config.json``,
        ``special_tokens_map.json`` or ``added_tokens.json``; end tokens in
        ``generation_config.json`` and ``config.json``, too; the chat template in
        ``chat_template.jinja``.

        Raises
        ------
        TokenizerError
            If a file is missing or damaged; the message names it.
        MissingExtraError
            If the package ``tokenizers`` is not installed.
        """
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise TokenizerError(f"{path} does not exist; a model folder has a tokenizer.json")
        package = require("tokenizers", f"reading {path}")
        with _package(
            f"{path} cannot be used", f"it is damaged, or newer than tokenizers {_version(package)}"
        ):
            backend = package.Tokenizer.from_file(str(path))
            backend.no_truncation()  # settings of a batch in training, which would cut a prompt
            backend.no_padding()
        settings = _read_json(folder / "tokenizer_config.json")
        beside = _BesideTokenizer(folder, settings)
        with _package(f"what stands beside {path} cannot be used", "repair or remove it"):
            beside.add_tokens(backend)
            special = beside.texts()
            _set_what_is_added(backend, settings, special)
        if settings.get("split_special_tokens") is True:
            backend.encode_special_tokens = True
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

    def encode(self, text: str, add_special: bool = True, after: str = "") -> list[int]:
        """Token ids of a text; special tokens written out in it are recognised.

        Parameters
        ----------
        text : str
            Any text that UTF-8 can hold.
        add_special : bool
            Add what the model puts around every text, such as a token that starts it. A chat
            template writes these itself: encode its output with ``add_special=False``.
        after : str
            What stands before `text`. Some tokenizers write the first word of a text otherwise
            than one within it, so a part is not encoded as a text of its own. Nothing is added
            to a part.

        Raises
        ------
        TokenizerError
            If `text` is not a string or holds half of a surrogate pair.
        """
        if not after:
            return self._ids(text, add_special)
        before = self._ids(after, False)
        whole = self._ids(after + text, False)
        if whole[: len(before)] == before:
            return whole[len(before) :]
        return self._ids(text, False)  # a token would reach over the seam

    def decode(
        self, ids: Iterable[int], skip_special: bool = True, after: Iterable[int] = ()
    ) -> str:
        """Text of token ids; bytes that are no UTF-8 become U+FFFD.

        An id without a token is no text: models pad their vocabularies, and may choose such an id.
        transformers' ``clean_up_tokenization_spaces`` is not applied: it changes what was written.

        Parameters
        ----------
        ids : iterable of int
        skip_special : bool
            Leave special tokens out of the text.
        after : iterable of int
            The tokens before `ids`. Some tokenizers drop the space before the first word of a
            text, so a continuation is not decoded as a text of its own.

        Raises
        ------
        TokenizerError
            If an id is not a whole number from 0 up.
        """
        new = [self._checked(token) for token in ids]
        before = [self._checked(token) for token in after]
        with _package("tokenizer.json cannot decode these ids"):
            whole = self.backend.decode(before + new, skip_special)
            if not before:
                return whole
            start = self.backend.decode(before, skip_special)
        return whole[_common_length(start, whole) :]

    def stream(
        self, ids: Iterable[int], skip_special: bool = True, after: Iterable[int] = ()
    ) -> Iterator[str]:
        """Pieces of text as their tokens arrive; joined, they are ``decode`` of all the ids."""
        decoder = StreamDecoder(self, skip_special, after)
        yield from filter(None, map(decoder.put, ids))
        yield from filter(None, [decoder.flush()])

    def apply_chat_template(
        self,
        messages: Iterable[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """A conversation as the text that the model was trained on.

        Parameters
        ----------
        messages : iterable of mappings
            Each with ``role`` (``"system"``, ``"user"`` or ``"assistant"``), and what else the
            template reads: mostly ``content``.
        add_generation_prompt : bool
            End with what starts the assistant's turn.
        **variables
            Of the template, such as ``enable_thinking=False`` for Qwen 3, ``tools`` or
            ``documents``.

        Raises
        ------
        TokenizerError
            If the model ships no template, or the template cannot be used with `messages`.
        MissingExtraError
            If jinja2 is not installed.

        Examples
        --------
        ``tokenizer.apply_chat_template(messages, enable_thinking=False)``
        """
        if self.chat_template is None:
            raise TokenizerError("the model ships no chat template: use a chat model, or raw text")
        if not isinstance(messages, Iterable):
            raise TokenizerError(f"messages are {messages!r:.80}, expected a list of mappings")
        messages = list(messages)  # once: it may be a generator
        for message in messages:
            if not isinstance(message, Mapping) or "role" not in message:
                raise TokenizerError(
                    f"a message is {message!r:.80}, expected a mapping with 'role' and 'content'"
                )
        given = {
            **self.special_tokens,
            "tools": None,
            "documents": None,
            **variables,
            "messages": messages,
            "add_generation_prompt": add_generation_prompt,
        }
        environment = _template_environment()
        try:
            return environment.from_string(self.chat_template).render(given)
        except Exception as error:  # templates run code: types, arithmetic, anything may fail
            raise TokenizerError(f"the model's chat template refused: {error}") from error

    def _ids(self, text: Any, add_special: bool) -> list[int]:
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
    after : iterable of int
        The tokens before the first one that is put.
    """

    def __init__(
        self, tokenizer: Tokenizer, skip_special: bool = True, after: Iterable[int] = ()
    ) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._emitted = list(after)  # tokens of the last piece
        self._held: list[int] = []  # tokens since

    def put(self, token: int) -> str:
        """Take a token; return the text that is now complete, which may be empty."""
        text = self._text([*self._held, token])
        self._held.append(token)
        if not text or text.endswith("\ufffd") or self._may_join_bytes(token):
            return ""
        self._emitted = self._held
        self._held = []
        return text

    def flush(self) -> str:
        """End the text; an incomplete character comes out as U+FFFD."""
        text = self._text(self._held)
        self._emitted = []
        self._held = []
        return text

    def _may_join_bytes(self, token: int) -> bool:
        """Whether byte tokens before and after this one may be one run."""
        piece = self._tokenizer.backend.id_to_token(token) or ""
        silent = not self._tokenizer.decode([token], self._skip_special)
        return silent or re.fullmatch("<0x[0-9A-F]{2}>", piece) is not None

    def _text(self, new: list[int]) -> str:
        return self._tokenizer.decode(new, self._skip_special, after=self._emitted)


class _BesideTokenizer:
    """Tokens that stand beside tokenizer.json, in the order in which transformers adds them."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        named = dict(settings)
        extra = _as_list(settings.get("additional_special_tokens"))
        extra += _as_list(settings.get("extra_special_tokens"))
        numbered = settings.get("added_tokens_decoder")
        if numbered is None:  # transformers reads the older files only then
            older = _read_json(folder / "special_tokens_map.json")
            named |= older
            extra += _as_list(older.get("additional_special_tokens"))
            extra += _as_list(older.get("extra_special_tokens"))
        names = [key for key in named if key.endswith("_token") and _content(named[key])]
        self._named = {key: named[key] for key in sorted(names, key=_rank)}
        self._extra = [value for value in extra if _content(value)]
        special = {_content(value) for value in (*self._named.values(), *self._extra)}
        self._numbered: dict[int, Mapping[str, Any]] = {}
        self._source = folder / "tokenizer_config.json"
        if isinstance(numbered, dict):
            for index, token in numbered.items():
                self._number(index, token)
        elif numbered is None:
            self._source = folder / "added_tokens.json"
            for text, index in _read_json(self._source).items():
                flag = text in special
                self._number(index, {"content": text, "special": flag, "normalized": not flag})

    def texts(self) -> dict[str, str]:
        """The named tokens: ``bos_token``, ``eos_token`` and so on."""
        return {key: _content(value) for key, value in self._named.items()}

    def add_tokens(self, backend: Any) -> None:
        """Add to the vocabulary what it does not have."""
        held = backend.get_added_tokens_decoder().values()
        alike = {repr(token) for token in held}
        numbered = [_added_token(self._numbered[index]) for index in sorted(self._numbered)]
        new = [token for token in numbered if repr(token) not in alike]
        known = {token.content for token in (*held, *new)}
        for value in (*self._named.values(), *self._extra):
            if _content(value) not in known:
                known.add(_content(value))
                new.append(_added_token(value, special=True))
        special = set(self.texts().values())
        for token in new:
            token.special = token.special or token.content in special
        if new:
            backend.add_tokens(new)
        for index, token in self._numbered.items():
            found = backend.token_to_id(token["content"])
            if found != index:
                raise TokenizerError(
                    f"{self._source} gives {token['content']!a:.80} the id {index}, tokenizer.json "
                    f"{found}"
                )

    def _number(self, index: Any, token: Any) -> None:
        try:
            number = int(index)
        except (TypeError, ValueError, OverflowError):
            number = -1
        if number < 0 or not isinstance(token, Mapping) or not _content(token):
            raise TokenizerError(
                f"{self._source} holds an added token {index!r:.40}: {token!r:.80}, expected an id "
                "and the token's content"
            )
        self._numbered[number] = token


def _rank(name: str) -> int:
    """Where a special token stands in the order in which transformers adds those that are new."""
    return _STANDARD.index(name) if name in _STANDARD else len(_STANDARD)


def _added_token(value: Any, special: bool = False) -> Any:
    """A token as its package has it, from a text or an object with options."""
    package = require("tokenizers", "an added token")
    options = {}
    if isinstance(value, Mapping):
        names = ("single_word", "lstrip", "rstrip", "normalized", "special")
        options = {key: value[key] for key in names if key in value}
    if special:
        options["special"] = True
    return package.AddedToken(_content(value), **options)


def _set_what_is_added(
    backend: Any, settings: Mapping[str, Any], special: Mapping[str, str]
) -> None:
    """Obey ``add_bos_token`` and ``add_eos_token`` of the classes that do, if they are there."""
    kind = settings.get("tokenizer_class")
    told = [settings.get(key) for key in ("add_bos_token", "add_eos_token")]
    if not isinstance(kind, str) or not kind.startswith(_ADD_BY_SETTING):
        return
    if not any(isinstance(value, bool) for value in told):
        return
    start = special.get("bos_token") if told[0] is not False else None
    end = special.get("eos_token") if told[1] is True else None
    if told[0] is True and start is None:
        return  # nothing is named that could be added
    around = [token for token in (start, end) if token is not None]
    pattern = [token for token in (start, "$A", end) if token is not None]
    processors = require("tokenizers.processors", "add_bos_token")
    backend.post_processor = processors.TemplateProcessing(
        single=pattern, special_tokens=[(token, backend.token_to_id(token)) for token in around]
    )


def _template_environment() -> Any:
    """What transformers offers to templates, and templates rely on."""
    require_extra("jinja2", "chat", "a chat template")
    import jinja2.sandbox
    from jinja2 import nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        """``{% generation %}``, which marks what a model is trained to say."""

        tags = {"generation"}  # noqa: RUF012 - the name and type that jinja2 asks for

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_unchanged"), [], [], body).set_lineno(line)

        def _unchanged(self, caller: Any) -> str:
            return caller()

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


@contextlib.contextmanager
def _package(complaint: str, advice: str = "") -> Iterator[None]:
    """What the package raises as a `TokenizerError`: plain exceptions, and panics of its Rust."""
    try:
        yield
    except TokenizerError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200]
        ending = f"; {advice}" if advice else ""
        raise TokenizerError(f"{complaint}: {reason}{ending}") from None


def _common_length(a: str, b: str) -> int:
    """How many characters two texts begin with alike: a cut character may end otherwise."""
    if b.startswith(a):
        return len(a)
    return next(i for i, (x, y) in enumerate(zip(a, b + "\0", strict=False)) if x != y)


def _version(package: Any) -> str:
    return getattr(package, "__version__", "as installed")


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


def _as_list(value: Any) -> list[Any]:
    """A list of tokens; an object of named ones counts as its values, anything else as none."""
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list) else []


def _template(settings: Mapping[str, Any]) -> str | None:
    """The chat template of ``tokenizer_config.json``: a string, or a list of named ones."""
    given = settings.get("chat_template")
    if isinstance(given, list):
        named = [entry for entry in given if isinstance(entry, dict)]
        given = next((x.get("template") for x in named if x.get("name") == "default"), None)
    return given if isinstance(given, str) else None


def _raise_exception(message: str) -> None:
    raise ValueError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own filter escapes for HTML, which a prompt must not
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
