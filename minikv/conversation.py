"""A conversation on one KV cache: each turn reads only what is new."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .caches import Cache, Evicting
from .caches.saving import read_notes
from .errors import CacheError, InputError, TokenizerError
from .model import Model


class ContextFull(InputError):
    """A question leaves no room in the context for an answer."""


class Conversation:
    """Questions and answers in a model's chat template.

    The cache is filled by whoever generates: the ids that `ask` returns go into it, and then the
    answer's, which `answer` is told of.

    Parameters
    ----------
    model : Model
        With a tokenizer that has a chat template.
    system : str, optional
        Instructions for the model.
    variables : mapping, optional
        Of the chat template, such as ``{"enable_thinking": False}``.
    new_cache : callable, optional
        Makes an empty cache; by default the full one.

    Attributes
    ----------
    cache : Cache
        Holds the conversation, all of it but the end.
    ids : list of int
        The conversation.
    restarts : int
        How often the template rewrote earlier turns, so that all is read again.

    Raises
    ------
    TokenizerError
        If the model has no tokenizer, or that has no chat template.
    """

    def __init__(
        self,
        model: Model,
        system: str | None = None,
        variables: Mapping[str, object] | None = None,
        new_cache: Callable[[], Cache] | None = None,
    ) -> None:
        if model.tokenizer is None:
            raise TokenizerError("the model has no tokenizer.json, which text needs")
        self.model = model
        self.tokenizer = model.tokenizer
        self.messages: list[dict[str, str]] = []
        if system:
            self.messages.append({"role": "system", "content": system})
        self._variables = dict(variables or {})
        self._new_cache = new_cache or model.new_cache
        self.cache = self._new_cache()
        self.ids: list[int] = []
        self.restarts = 0
        self._text = ""  # what `ids` spell
        self._before: list[tuple[int, int]] = []  # how long both were, before each question
        self._rendered("")  # a template that is missing is missed now

    def ask(self, question: str) -> list[int]:
        """Put a question, and return the ids that the cache lacks.

        Raises
        ------
        ContextFull
            If no token of an answer would fit behind it; the question is then forgotten.
        """
        text = self._rendered(question)
        if not text.startswith(self._text):
            self._read_all_again()
        part = text[len(self._text) :]
        new = self.tokenizer.encode(part, add_special=False, after=self._text)
        length = len(self.ids) + len(new)
        context = self.model.config.max_position_embeddings
        if length >= context:
            raise ContextFull(
                f"with this the conversation has {length} tokens, the context is {context}: "
                "ask less, or start a new one"
            )
        self._before.append((len(self.ids), len(self._text)))
        self.messages.append({"role": "user", "content": question})
        self.ids += new
        self._text = text
        return self.ids[self.cache.seen :]

    def answer(self, ids: Sequence[int], ended: bool = False) -> str:
        """Take down the answer, and return its text.

        Parameters
        ----------
        ids : sequence of int
            What was generated.
        ended : bool
            Whether the last id ends the text: it belongs to the template, not to the message.
        """
        message = ids[:-1] if ended else ids
        content = self.tokenizer.decode(message, skip_special=False, after=self.ids)
        self.messages.append({"role": "assistant", "content": content})
        self._text += self.tokenizer.decode(ids, skip_special=False, after=self.ids)
        self.ids += ids
        return content

    def undo(self) -> str:
        """Forget the last question and its answer, and return the question.

        Where the cache can be cut back, nothing is read again; one that evicts cannot.

        Raises
        ------
        InputError
            If nothing was asked yet.
        """
        asked = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        if not asked:
            raise InputError("nothing was asked yet")
        question = self.messages[asked[-1]]["content"]
        del self.messages[asked[-1] :]
        if not self._before or isinstance(self.cache, Evicting):
            self._forget()
            return question
        tokens, characters = self._before.pop()
        self.cache.truncate(min(self.cache.seen, tokens))
        del self.ids[tokens:]
        self._text = self._text[:characters]
        return question

    def save(self, path: str | Path) -> None:
        """Keep the cache in a file, and what was said; raises `CacheError` if it cannot."""
        said = {"messages": self.messages, "ids": self.ids, "text": self._text}
        self.cache.save(path, {"conversation": json.dumps(said)})

    def load(self, path: str | Path) -> None:
        """Go on with a conversation that `save` kept, instead of this one.

        Raises
        ------
        CacheError
            If the file holds no conversation, or one with another model, arithmetic or policy.
        """
        messages, ids, text = _said(path)
        self.cache.load(path)
        if self.cache.seen > len(ids):
            raise CacheError(f"{path}: the conversation has fewer ids than its cache has seen")
        self.messages = messages
        self.ids = ids
        self._text = text
        self._before = []

    def _rendered(self, question: str) -> str:
        messages = [*self.messages, {"role": "user", "content": question}]
        return self.tokenizer.apply_chat_template(messages, True, **self._variables)

    def _read_all_again(self) -> None:
        self._forget()
        self.restarts += 1

    def _forget(self) -> None:
        """Keep the messages alone."""
        self.cache = self._new_cache()
        self.ids = []
        self._text = ""
        self._before = []


def _said(path: str | Path) -> tuple[list[dict[str, str]], list[int], str]:
    """Messages, ids and text of a saved conversation."""
    note = read_notes(path).get("conversation")
    if note is None:
        raise CacheError(f"{path} holds a cache, but no conversation")
    try:
        said = json.loads(note)
        messages = [
            {"role": str(each["role"]), "content": str(each["content"])}
            for each in said["messages"]
        ]
        ids = [int(token) for token in said["ids"]]
        return messages, ids, str(said["text"])
    except (KeyError, TypeError, ValueError):
        raise CacheError(f"{path}: the conversation in it is damaged") from None
