"""A server that completes texts and gives log-probabilities, as OpenAI's first API did.

What is compared are the best log-probabilities that such a server gives at the positions of a
prompt (``echo`` with ``logprobs``). Requests that share a beginning are made one after the other,
so that a kept prefix may be used; that it was, the server's ``cached_tokens`` must say.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from ..rule import UNITS

SECONDS = 60
TOP = 20
COARSEST = "bfloat16"


class OpenAITarget:
    """Log-probabilities of a server's tokens as an adapter; a vocabulary of `vocab` ids.

    Rows are the `TOP` best log-probabilities, sorted: a server does not give them all. Nor does it
    say in which dtype it computes: `dtype` is the coarsest that most use, unless it is known.
    """

    keeps_prefixes = True

    def __init__(
        self, address: str, vocab: int = 1000, model: str | None = None, dtype: str = COARSEST
    ) -> None:
        self.address = address.rstrip("/")
        self.dtype = dtype
        self.name = f"openai:{address}"
        self.vocab = vocab
        self.model = model or self._model()

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """The best log-probabilities at every position, ``(T, TOP)``.

        A prompt's first token has none before it, so that a request ends in one new token: row t
        is what the server says of the token behind t.
        """
        return self._rows(self._asked(ids, reuse=False))

    def request(self, ids: Sequence[int]) -> tuple[np.ndarray, int]:
        """The last row, and how many tokens of the prompt the server had kept."""
        answer = self._asked(ids, reuse=True)
        details = answer.get("usage", {}).get("prompt_tokens_details") or {}
        return self._rows(answer)[-1:], int(details.get("cached_tokens", 0))

    def _rows(self, answer: dict[str, Any]) -> np.ndarray:
        tops = answer["choices"][0]["logprobs"]["top_logprobs"]
        rows = [sorted(top.values(), reverse=True)[:TOP] for top in tops if top]
        width = min(map(len, rows))
        return np.array([row[:width] for row in rows], dtype=np.float64)

    def _asked(self, ids: Sequence[int], reuse: bool) -> dict[str, Any]:
        body = {
            "model": self.model,
            "prompt": list(map(int, ids)),
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": TOP,
            "echo": True,
            "cache_prompt": reuse,  # llama.cpp's word for it; others ignore it
        }
        answer = self._call("/v1/completions", body)
        if not answer.get("choices") or not answer["choices"][0].get("logprobs"):
            raise InputError(f"{self.address} gives no log-probabilities of the prompt")
        return answer

    def _model(self) -> str:
        known = self._call("/v1/models", None).get("data") or []
        if not known:
            raise InputError(f"{self.address} lists no model")
        return str(known[0]["id"])

    def _call(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.address + path, data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return dict(json.load(answer))
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise InputError(f"{self.address}{path}: {error}") from error


def target(address: str, dtype: str | None = None) -> OpenAITarget:
    """A server by its address; token ids are drawn below 1,000.

    `dtype` is that in which the server is known to compute.
    """
    if dtype is not None and dtype not in UNITS:
        raise InputError(f"dtype is {dtype!r:.40}, expected one of {', '.join(UNITS)}")
    if not address.startswith(("http://", "https://")):
        raise InputError(f"the server is {address!r:.80}, expected http://HOST:PORT")
    return OpenAITarget(address, dtype=dtype or COARSEST)
