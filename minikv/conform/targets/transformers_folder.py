"""A model of transformers, from a folder in Hugging Face layout."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, MinikvError
from ...extras import require_extra
from ...families import SLIDING
from ...model import Model, load
from ...tokenizer import Tokenizer
from ...weights import resolve

LONGEST = 256  # positions of a static cache
Module = Any
"""A model of transformers."""

Held = Any
"""A cache of transformers."""

Settings = Any
"""A configuration of transformers."""

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


class TransformersTarget:
    """A causal language model of transformers as an adapter.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    cache : {"dynamic", "static"}
    positions : {"mask", "default"}
        Whether position ids of a padded batch are counted from its mask, as ``generate`` does, or
        left to the model.
    folder : str, optional
        Where the weights came from, for minikv to read them too.
    """

    def __init__(
        self,
        model: Module,
        cache: str = "dynamic",
        positions: str = "mask",
        folder: str | None = None,
    ) -> None:
        torch = require_extra("torch", "peers", "a target of transformers")
        transformers = require_extra("transformers", "peers", "a target of transformers")
        self.model = model.eval()
        self.cache, self.positions = cache, positions
        self.folder = folder
        config = model.config.get_text_config()
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.vocab = int(config.vocab_size)
        self.name = f"transformers {config.model_type} {config._attn_implementation}"
        self.environment = {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "attention": config._attn_implementation,
        }
        self.data_dependent = any(getattr(config, name, None) for name in EXPERTS)
        self.window = getattr(config, "sliding_window", None)
        self.reach = reach_of(config)
        longest = getattr(config, "max_position_embeddings", None)
        self.max_length = longest if cache == "dynamic" else min(longest or LONGEST, LONGEST)
        self.tokenizer = None
        if folder is None:
            self.reference = None  # type: ignore[assignment,method-assign]  # not here
        else:
            self.tokenizer = _tokenizer(folder)
        if self.tokenizer is None:
            self.encode = None  # type: ignore[assignment,method-assign]  # not here

    def wide(self) -> TransformersTarget:
        """The same weights in float64."""
        twin = copy.deepcopy(self.model).double()
        return TransformersTarget(twin, self.cache, self.positions, self.folder)

    def nudged(self, seed: int) -> TransformersTarget:
        """Every weight moved by a unit up or down, which is half of that after rounding."""
        import torch

        twin = copy.deepcopy(self.model)
        generator = torch.Generator().manual_seed(seed)
        unit = torch.finfo(self.model.dtype).eps / 2
        with torch.no_grad():
            for weight in twin.parameters():
                signs = torch.randint(0, 2, weight.shape, generator=generator) * 2 - 1
                weight.mul_((1 + unit * signs).double())
        return TransformersTarget(twin, self.cache, self.positions, self.folder)

    def reference(self) -> Model:
        """minikv on the same weights, in float64, rounded as the target's are."""
        assert self.folder is not None
        if self.dtype != "float32":
            raise NotImplementedError(f"minikv reads the folder's weights, not {self.dtype} ones")
        return load(self.folder, "float64")

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        assert self.tokenizer is not None
        return self.tokenizer.encode(text)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits of every position."""
        return self._run(ids, use_cache=False)[0]

    def new_cache(self) -> Held:
        """A dynamic or static cache that knows the model's windows."""
        import transformers

        if self.cache == "static":
            return transformers.StaticCache(config=self.model.config, max_cache_len=LONGEST)
        return transformers.DynamicCache(config=self.model.config)

    def step(self, ids: Sequence[int], cache: Held) -> np.ndarray:
        """Logits of new tokens."""
        return self._run(ids, past_key_values=cache, use_cache=True)[0]

    def truncate(self, cache: Held, length: int) -> None:
        """Crop a dynamic cache."""
        if self.cache == "static":
            raise NotImplementedError("static caches cannot be cropped")
        if any("Sliding" in type(layer).__name__ for layer in cache.layers):
            raise NotImplementedError("sliding layers cannot be cropped")
        cache.crop(length)

    def fork(self, cache: Held) -> Held:
        """A copy."""
        return copy.deepcopy(cache)

    def batch(
        self, texts: Sequence[Sequence[int]], steps: int = 0, pad: int = 0, side: str = "left"
    ) -> list[np.ndarray]:
        """One padded batch; the mask says what is padding."""
        import torch

        longest = max(map(len, texts))
        gaps = [longest - len(text) for text in texts]
        rows = [[pad] * gap + list(text) for gap, text in zip(gaps, texts, strict=True)]
        seen = [[0] * gap + [1] * len(text) for gap, text in zip(gaps, texts, strict=True)]
        if side == "right":
            rows = [list(text) + [pad] * gap for gap, text in zip(gaps, texts, strict=True)]
            seen = [list(reversed(one)) for one in seen]
        ids, mask = torch.tensor(rows), torch.tensor(seen)
        positions = (mask.cumsum(-1) - 1).clamp_min(0)
        cache = self.new_cache() if steps else None
        ends = [longest - steps, *range(longest - steps + 1, longest + 1)]
        found = []
        start = 0
        for end in ends:
            extra: dict[str, Any] = {"past_key_values": cache, "use_cache": bool(steps)}
            if self.positions == "mask":
                extra["position_ids"] = positions[:, start:end]
            found.append(self._run(ids[:, start:end], attention_mask=mask[:, :end], **extra))
            start = end
        out = np.concatenate(found, axis=1)
        if side == "right":
            return [one[: len(text)] for one, text in zip(out, texts, strict=True)]
        return [one[longest - len(text) :] for one, text in zip(out, texts, strict=True)]

    def run_with_cache(self, ids: Sequence[int]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Logits, and the stream before each layer."""
        return self._watched(ids, use_cache=False)

    def step_with_cache(
        self, ids: Sequence[int], cache: Held
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The same of new tokens on a cache."""
        return self._watched(ids, past_key_values=cache, use_cache=True)

    def _watched(
        self, ids: Sequence[int], **settings: Any
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        import torch

        with torch.no_grad():
            out = self.model(
                input_ids=torch.tensor([list(ids)]), output_hidden_states=True, **settings
            )
        streams = [one[0].double().numpy() for one in out.hidden_states]
        named = {f"blocks.{i}.hook_resid_pre": one for i, one in enumerate(streams[:-1])}
        return out.logits[0].double().numpy(), named

    def _run(self, ids: Any, **settings: Any) -> np.ndarray:
        import torch

        if not isinstance(ids, torch.Tensor):
            ids = torch.tensor([list(ids)])
        with torch.no_grad():
            return self.model(input_ids=ids, **settings).logits.double().numpy()


def reach_of(config: Settings) -> int | None:
    """How far back all windows of a configuration together see; None if a layer sees all."""
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None) or [SLIDING]
    if not window or set(types) != {SLIDING}:
        return None
    return int(config.num_hidden_layers) * (int(window) - 1)


def _tokenizer(folder: str) -> Tokenizer | None:
    try:
        return Tokenizer.from_folder(Path(folder))
    except (MinikvError, OSError):
        return None


def target(folder: str, dtype: str | None = None) -> TransformersTarget:
    """A model from a folder, or the name of a fetched one.

    `dtype` is that of torch, with an attention implementation and a cache behind it where wanted:
    ``"bfloat16"``, ``"float32,eager"``, ``"float32,sdpa,static"``.
    """
    torch = require_extra("torch", "peers", "a target of transformers")
    transformers = require_extra("transformers", "peers", "a target of transformers")
    words = (dtype or "float32").split(",")
    if not hasattr(torch, words[0]):
        raise InputError(f"dtype is {words[0]!r:.40}, expected one of torch, as bfloat16")
    attention = "eager" if "eager" in words else "sdpa"
    path = str(resolve(folder))
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            path, dtype=getattr(torch, words[0]), attn_implementation=attention
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"transformers does not load {folder:.80}: {error}") from error
    cache = "static" if "static" in words else "dynamic"
    made = TransformersTarget(model, cache, folder=path)
    made.name = f"transformers:{folder}, {','.join(words)}"
    return made
