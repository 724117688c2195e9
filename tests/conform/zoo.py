"""Small decoders written to be tested, and faults planted in them by name.

One forward pass on two libraries, with absolute or rotary positions, grouped queries, windows that
drop rows, sinks, padded batches, pages, and a mixture of experts. A clean decoder has no faults.
Keys carry two positions: `turned`, what they were rotated by, and `true`, what the mask goes by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import minikv
from minikv.config import FULL, SLIDING
from minikv.model import Model
from tests.conform.zoo_numbers import NumPyNumbers, TorchNumbers

PAGE = 8  # tokens

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "gpt-torch": {"library": "torch", "rotary": False, "groups": 4},
    "gpt-numpy": {"rotary": False, "groups": 4},
    "llama-torch": {"library": "torch"},
    "llama-numpy": {},
    "window-torch": {"library": "torch", "window": 9, "every": 2},
    "evict-numpy": {"window": 8, "sink": 2},
    "paged-numpy": {"paged": True},
    "moe-numpy": {"experts": 3},
}

LINEAR = ("q", "k", "v", "o", "up0", "gate0", "down0")
"""The matrices of a block, each ``(in, out)``."""

Weights = Mapping[str, np.ndarray]
"""``embed``, ``head``, and the matrices of blocks by layer and name, as ``"3.q"``."""

Array = Any
Hook = Callable[[str, Array], Array]


class Cache:
    """Rows of every layer: K, V, and both positions of keys."""

    def __init__(self, layers: int, policy: str = "full", budget: int | None = None) -> None:
        self.keys: list[Array] = [None] * layers
        self.values: list[Array] = [None] * layers
        self.turned: list[Array] = [None] * layers
        self.true: list[Array] = [None] * layers
        self.seen = 0
        self.extra = 0
        self.policy = policy
        self.budget = budget

    def rows(self, layer: int) -> int:
        """How many are held."""
        return 0 if self.keys[layer] is None else self.keys[layer].shape[2]

    def read(self, layer: int) -> tuple[Array, Array]:
        """K and V of what is held."""
        return self.keys[layer], self.values[layer]

    def write(self, layer: int, keys: Array, values: Array) -> None:
        """Hold these, all of them."""
        self.keys[layer], self.values[layer] = keys, values

    def fork(self, shared: bool) -> Cache:
        """An independent copy, unless `shared`."""
        twin = type(self)(len(self.keys), self.policy, self.budget)
        twin.seen, twin.extra = self.seen, self.extra
        for name in ("keys", "values", "turned", "true"):
            rows = getattr(self, name)
            setattr(twin, name, rows if shared else rows[:])
        return twin


class PagedCache(Cache):
    """K and V in pages of `PAGE` slots and a table of pages; a fork has pages of its own."""

    faults: frozenset[str] = frozenset()

    def write(self, layer: int, keys: Array, values: Array) -> None:
        old = self.keys[layer]
        pages = []
        for number, start in enumerate(range(0, keys.shape[2], PAGE)):
            page = (room(keys), room(values))
            if "page_shared" in self.faults and old is not None and number < len(old.pages):
                page = old.pages[number]  # which a fork may still read
            for slots, rows in zip(page, (keys, values), strict=True):
                part = rows[:, :, start : start + PAGE]
                slots[:, :, : part.shape[2]] = part
            pages.append(page)
        self.keys[layer] = Pages(pages, keys.shape[2])

    def read(self, layer: int) -> tuple[Array, Array]:
        held = self.keys[layer]
        keys, values = (
            np.concatenate([page[which] for page in held.pages], axis=2)[:, :, : held.count]
            for which in (0, 1)
        )
        if "page_order" in self.faults and held.count > 2 * PAGE:
            first, second = values[:, :, :PAGE], values[:, :, PAGE : 2 * PAGE]
            values = np.concatenate([second, first, values[:, :, 2 * PAGE :]], axis=2)
        if "page_boundary" in self.faults and held.count % PAGE == 0:
            values = np.concatenate([values[:, :, :-1], values[:, :, :1]], axis=2)
        return keys, values


def room(rows: np.ndarray) -> np.ndarray:
    """Empty slots of a page for rows of this kind."""
    return np.zeros((*rows.shape[:2], PAGE, rows.shape[3]), rows.dtype)


class Pages:
    """A table of pages, of which the first `count` slots are filled."""

    def __init__(self, pages: list[tuple[np.ndarray, np.ndarray]], count: int) -> None:
        self.pages = pages
        self.count = count
        self.shape = (0, 0, count, 0)


class Decoder:
    """A target of `minikv.conform`, with weights from a seed and planted faults."""

    policies = ("recent",)

    def __init__(
        self,
        seed: int = 0,
        dtype: str = "float32",
        faults: Sequence[str] = (),
        library: str = "numpy",
        layers: int = 2,
        width: int = 32,
        heads: int = 4,
        groups: int = 2,
        vocab: int = 40,
        rotary: bool = True,
        window: int | None = None,
        every: int = 1,
        sink: int = 0,
        max_length: int = 80,
        gain: float = 1.0,
        paged: bool = False,
        experts: int = 0,
        base: float = 1e4,
        eps: float = 1e-6,
        given: Weights | None = None,
    ) -> None:
        self.settings = {key: value for key, value in locals().items() if key != "self"}
        self.name = "a decoder of the zoo"
        self.dtype = dtype
        self.vocab = vocab
        self.faults = frozenset(faults)
        self.numbers = (TorchNumbers if library == "torch" else NumPyNumbers)(dtype)
        self.layers, self.heads, self.groups = layers, heads, groups
        self.head_dim = width // heads
        self.width = width
        self.rotary = rotary
        self.base, self.eps = base, eps
        self.window, self.sink = window, sink
        self.windows = [
            window if window and layer % every == 0 else None for layer in range(layers)
        ]
        self.paged = paged
        self.experts = experts
        self.data_dependent = bool(experts)
        self.max_length = max_length
        self.calls = 0
        self.padded = False
        self.hook: Hook | None = None
        self.noise = np.random.default_rng()
        self.left_over: Cache | None = None
        self.prefix: tuple[list[int], Cache] | None = None
        if given is None:
            self._make_weights(np.random.default_rng(seed), gain)
        else:
            self._take_weights(given)
        if any(self.windows):
            self.policies = None
        if all(self.windows) and not sink:
            self.reach = sum(one - 1 for one in self.windows)
        if sink:
            self.reach = layers * (window - 1)
        if experts or not rotary or sink:
            self.reference = None

    def _make_weights(self, random: np.random.Generator, gain: float) -> None:
        def matrix(rows: int, columns: int) -> Array:
            drawn = random.normal(size=(rows, columns)) * gain / rows**0.5
            return self.numbers.array(drawn.astype(np.float32))

        def table(rows: int, scale: float) -> Array:
            drawn = random.normal(size=(rows, self.width)).astype(np.float32) * scale
            return self.numbers.array(drawn)

        width, kv = self.width, self.groups * self.head_dim
        self.embed = table(self.vocab, 1.0)
        self.embed_positions = table(self.max_length + 2, 0.7)
        self.blocks = []
        for _ in range(self.layers):
            block = {
                "q": matrix(width, width),
                "k": matrix(width, kv),
                "v": matrix(width, kv),
                "o": matrix(width, width),
                "router": matrix(width, max(self.experts, 1)),
            }
            for expert in range(max(self.experts, 1)):
                block[f"up{expert}"] = matrix(width, 2 * width)
                block[f"gate{expert}"] = matrix(width, 2 * width)
                block[f"down{expert}"] = matrix(2 * width, width)
            self.blocks.append(block)
        self.head = matrix(width, self.vocab)

    def _take_weights(self, given: Weights) -> None:
        """Those of a real model, with rotary positions."""
        array = self.numbers.array
        self.embed, self.head = array(given["embed"]), array(given["head"])
        self.embed_positions = array(np.zeros((0, self.width)))
        self.blocks = [
            {name: array(given[f"{layer}.{name}"]) for name in LINEAR}
            for layer in range(self.layers)
        ]

    # twins

    def _twin(self, dtype: str, change: Callable[[np.ndarray], np.ndarray]) -> Decoder:
        """The same decoder in another dtype, its weights changed."""
        twin = Decoder(**{**self.settings, "dtype": dtype})

        def moved(x: Array) -> Array:
            return twin.numbers.array(change(self.numbers.numpy(x)))

        twin.embed, twin.head = moved(self.embed), moved(self.head)
        twin.embed_positions = moved(self.embed_positions)
        twin.blocks = [{key: moved(x) for key, x in block.items()} for block in self.blocks]
        return twin

    def wide(self) -> Decoder:
        """Weights as they are, in float64."""
        return self._twin("float64", lambda x: x)

    def nudged(self, seed: int) -> Decoder:
        """Each weight moved by half a unit, up or down."""
        from minikv.conform.rule import UNITS

        random = np.random.default_rng(seed)
        half = UNITS[self.dtype] * 2  # a nudge below a unit in the last place would round away

        def nudge(x: np.ndarray) -> np.ndarray:
            return x * (1 + half * random.choice([-1.0, 1.0], size=x.shape) / 2)

        return self._twin(self.dtype, nudge)

    def reference(self) -> Model:
        """minikv with these weights, in float64."""
        from minikv.build import build

        types = tuple(SLIDING if one else FULL for one in self.windows)
        config = minikv.ModelConfig(
            vocab_size=self.vocab,
            hidden_size=self.width,
            intermediate_size=self.blocks[0]["up0"].shape[1],
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.groups,
            head_dim=self.head_dim,
            max_position_embeddings=self.max_length,
            rms_norm_eps=self.eps,
            rope_theta=self.base,
            tie_word_embeddings=False,
            model_type="mistral" if self.window else "llama",
            layer_types=types if self.window else (),
            sliding_window=self.window,
        )
        names = {
            "q": "self_attn.q_proj",
            "k": "self_attn.k_proj",
            "v": "self_attn.v_proj",
            "o": "self_attn.o_proj",
            "up0": "mlp.up_proj",
            "gate0": "mlp.gate_proj",
            "down0": "mlp.down_proj",
        }
        ones = np.ones(self.width)
        tensors = {
            "model.embed_tokens.weight": self.numbers.numpy(self.embed),
            "model.norm.weight": ones,
            "lm_head.weight": self.numbers.numpy(self.head).T,
        }
        for layer, block in enumerate(self.blocks):
            for key, name in names.items():
                tensors[f"model.layers.{layer}.{name}.weight"] = self.numbers.numpy(block[key]).T
            for norm in ("input_layernorm", "post_attention_layernorm"):
                tensors[f"model.layers.{layer}.{norm}.weight"] = ones
        return Model(build(config, tensors, "float64"))

    # the forward pass

    def rope(self, x: Array, positions: np.ndarray, cached: bool) -> Array:
        """Each head turned by its position; the angle is a float32 product."""
        if not self.rotary:
            return x
        base = self.base
        if "base_both" in self.faults or ("base_cached" in self.faults and cached):
            base /= 10
        half = self.head_dim // 2
        frequencies = (base ** -(np.arange(half) / half)).astype(np.float32)
        angles = positions.astype(np.float32)[:, None, :, None] * frequencies
        cos = self.numbers.array(np.cos(angles.astype(np.float64)))
        sin = self.numbers.array(np.sin(angles.astype(np.float64)))
        if "narrow_table" in self.faults and cached:
            cos, sin = self.numbers.coarse(cos), self.numbers.coarse(sin)
        first, second = x[..., :half], x[..., half:]
        turned = (first * cos - second * sin, second * cos + first * sin)
        return self.numbers.concat([self.numbers.round(part) for part in turned], -1)

    def norm(self, x: Array, cached: bool) -> Array:
        if "norm_batch" in self.faults and x.shape[0] > 1:
            x = x + self.numbers.mean_of_batch(x) * 0.25
        eps = 1e-1 if "eps_cached" in self.faults and cached else self.eps
        if self.rotary:
            return self.numbers.rms_norm(x, eps)
        return self.numbers.layer_norm(x, eps)

    def seen_by(self, name: str, value: Array) -> Array:
        return value if self.hook is None else self.hook(name, value)

    def run(
        self,
        ids: np.ndarray,
        turned: np.ndarray,
        true: np.ndarray,
        cache: Cache | None = None,
        visible: np.ndarray | None = None,
    ) -> Array:
        """Logits of rows of ids ``(B, T)`` at positions; -1 as a true one is padding."""
        numbers, cached = self.numbers, cache is not None
        x = self.embed[ids]
        if not self.rotary:
            inside = np.clip(turned, 0, self.max_length + 1)
            x = numbers.round(x + self.embed_positions[inside])
        first: dict[str, Array] = {}
        for layer, block in enumerate(self.blocks):
            name = f"blocks.{layer}."
            x = self.seen_by(name + "hook_resid_pre", x)
            y = self.norm(x, cached)
            z = self.attend(layer, y, turned, true, cache, visible, first)
            x = numbers.round(x + numbers.matmul(z, block["o"]))
            x = self.seen_by(name + "hook_resid_mid", x)
            x = numbers.round(x + self.mlp(block, self.norm(x, cached)))
            x = self.seen_by(name + "hook_resid_post", x)
        if cache is not None:
            cache.seen += ids.shape[1]
        return self.unembed(x, cached)

    def unembed(self, x: Array, cached: bool) -> Array:
        numbers = self.numbers
        if "final_norm" in self.faults and cached and x.shape[1] == 1:
            return numbers.matmul(numbers.round(x / 4), self.head)
        out = numbers.matmul(self.norm(x, cached), self.head)
        if "narrow_head_uncached" in self.faults and not cached:
            out = numbers.coarse(out)
        self.calls += 1
        if "nondet" in self.faults:
            unit = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
            size = 3 * unit.get(self.dtype, 2.0**-53)
            out = numbers.round(
                out + numbers.array(self.noise.normal(size=tuple(out.shape)) * size)
            )
        if "stateful" in self.faults and self.calls > 5:
            out = out + numbers.round(out * 0 + 0.01)
        return out

    def mlp(self, block: Mapping[str, Array], y: Array) -> Array:
        """SwiGLU; with experts each token goes through the one that its router prefers."""
        if not self.experts:
            return self.expert(block, 0, y)
        flat = y.reshape(-1, self.width)
        choice = self.numbers.numpy(self.numbers.matmul(flat, block["router"])).argmax(-1)
        out = flat * 0
        for expert in range(self.experts):
            chosen = np.flatnonzero(choice == expert)
            if len(chosen):
                out[chosen] = self.expert(block, expert, flat[chosen])
        return out.reshape(y.shape)

    def expert(self, block: Mapping[str, Array], number: int, y: Array) -> Array:
        numbers = self.numbers
        up = numbers.matmul(y, block[f"up{number}"])
        gate = numbers.silu(numbers.matmul(y, block[f"gate{number}"]))
        return numbers.matmul(numbers.round(gate * up), block[f"down{number}"])

    def attend(
        self,
        layer: int,
        y: Array,
        turned: np.ndarray,
        true: np.ndarray,
        cache: Cache | None,
        visible: np.ndarray | None,
        first: dict[str, Array],
    ) -> Array:
        """What attention gives, heads side by side; ``(B, T, H * d)``."""
        numbers, faults, block = self.numbers, self.faults, self.blocks[layer]
        cached = cache is not None
        name = f"blocks.{layer}.attn."
        batch, tokens = true.shape

        def split(value: Array, heads: int) -> Array:
            return value.reshape(batch, tokens, heads, self.head_dim).swapaxes(1, 2)

        q = split(numbers.matmul(y, block["q"]), self.heads)
        raw = split(numbers.matmul(y, block["k"]), self.groups)
        v = split(numbers.matmul(y, block["v"]), self.groups)
        if "value_residual" in faults:
            v = numbers.round(v + first.setdefault("v", v) / 2)
        if "keys_of_layer_0" in faults:
            raw = first.setdefault("k", raw)
        self.seen_by(name + "hook_k", raw.swapaxes(1, 2))
        if not ("q_unrotated" in faults and cached and tokens == 1):
            q = self.rope(q, turned, cached)
        k = self.rope(raw, turned, cached)
        self.seen_by(name + "hook_rot_k", k.swapaxes(1, 2))
        self.seen_by(name + "hook_v", v.swapaxes(1, 2))
        left = tokens % 32
        uncached = "mod32_uncached" in faults and not cached
        if ("mod32" in faults or uncached) and tokens > 32 and left:
            k = numbers.concat([k[:, :, :-left], k[:, :, -left:] * 0], 2)
        keys = Keys(k, v, turned, true, 0)
        if cache is not None:
            keys = self.recall(layer, keys, cache)
        mask = self.mask(layer, keys, true, cached)
        if visible is not None:
            mask = mask & visible[None, None]
        z = self.weighted(q, keys, mask, cached)
        if cache is not None:
            self.keep(layer, keys, raw, cache)
        return z

    def recall(self, layer: int, new: Keys, cache: Cache) -> Keys:
        """New keys behind those that are held."""
        numbers, faults = self.numbers, self.faults
        k, v = new.k, new.v
        for kind in ("float16", "bfloat16", "int8"):
            if f"kv_{kind}" in faults:
                k, v = numbers.stored(k, kind), numbers.stored(v, kind)
        if cache.keys[layer] is None:
            return Keys(k, v, new.turned, new.true, 0)
        held, values = cache.read(layer)
        old = held.shape[2]
        if "rerotate" in faults:
            held = self.rope(held, cache.turned[layer], True)
        batch = held.shape[0]
        if "batch_share" in faults and batch > 1 and layer == 0:
            held = numbers.concat([held[:1]] * batch, 0)
        k, v = numbers.concat([held, k], 2), numbers.concat([values, v], 2)
        if "v_shift" in faults and new.true.shape[1] == 1:
            v = numbers.concat([v[:, :, :-1], v[:, :, -2:-1]], 2)
        turned = np.concatenate([cache.turned[layer], new.turned], 1)
        true = np.concatenate([cache.true[layer], new.true], 1)
        return Keys(k, v, turned, true, old)

    def mask(self, layer: int, keys: Keys, true: np.ndarray, cached: bool) -> np.ndarray:
        """Who sees whom, ``(B, 1, T, S)`` bool."""
        faults, old = self.faults, keys.old
        batch, tokens = true.shape
        count = keys.k.shape[2]
        begun = cached and old > 0
        window = self.windows[layer]
        if "window_both" in faults and window:
            window += 1
        if begun and window:
            window += ("window_plus1" in faults) - ("window_minus1" in faults)
            if "window_none" in faults:
                window = None
        if begun and not window and "window_all" in faults:
            window = self.window
        queries, known = true[:, None, :, None], keys.true[:, None, None, :]
        mask = known <= queries
        if "future_both" in faults:
            mask = known <= queries + 1
        if "future_uncached" in faults and not cached:
            mask = known <= queries + (queries % 9 == 4)
        if begun and tokens > 1:
            if "chunk_open" in faults:
                mask = known <= queries.max(2, keepdims=True)
            if "chunk_offset" in faults:
                mask = known <= queries + 1
        if window:
            mask = mask & ((queries - known < window) | (known < self.sink))
        if begun:
            new = np.arange(count)[None, None, None, :] >= old
            if "mask_own_chunk" in faults:
                mask = mask & new
            if "mask_top" in faults:
                low = np.arange(count)[None, :] <= np.arange(tokens)[:, None]
                mask = np.broadcast_to(low[None, None], (batch, 1, tokens, count))
            if "own_row_hidden" in faults and tokens == 1:
                mask = mask & ~new
            if "skip_key0" in faults:
                mask = mask & (known > 0)
        if self.padded:
            mask = self.without_padding(mask, queries, known, begun)
        return np.broadcast_to(mask, (batch, 1, tokens, count))

    def without_padding(
        self, mask: np.ndarray, queries: np.ndarray, known: np.ndarray, begun: bool
    ) -> np.ndarray:
        """Padding is not seen; on the right it stands far ahead, on the left at -1."""
        seen = "pad_seen" in self.faults or ("pad_seen_cached" in self.faults and begun)
        if "pad_seen_right" in self.faults:
            return (mask & (known >= 0)) | (known >= FAR)
        if seen:
            return mask | ((known < 0) & (queries >= 0))
        return mask & (known >= 0)

    def weighted(self, q: Array, keys: Keys, mask: np.ndarray, cached: bool) -> Array:
        """Attention's output, heads side by side."""
        numbers, faults = self.numbers, self.faults
        begun = cached and keys.old > 0
        shared = self.heads // self.groups
        tiled = cached and "gqa_tile" in faults
        k, v = numbers.repeat(keys.k, shared), numbers.repeat(keys.v, shared)
        if tiled or (cached and "gqa_tile_k" in faults):
            k = numbers.concat([keys.k] * shared, 1)
        if tiled:
            v = numbers.concat([keys.v] * shared, 1)
        width = self.head_dim
        if "scale_both" in faults or ("scale_cached" in faults and begun):
            width *= 2
        scores = numbers.round(numbers.matmul(q, k.swapaxes(-1, -2)) * width**-0.5)
        extra = 1.0 if "softmax_extra" in faults and begun else 0.0
        pattern = numbers.softmax(scores, mask, extra)
        if "narrow_softmax" in faults and cached:
            pattern = numbers.coarse(pattern)
        z = numbers.matmul(pattern, v)
        if "narrow_values" in faults and cached:
            z = numbers.coarse(z)
        if "narrow_values_uncached" in faults and not cached:
            z = numbers.coarse(z)
        batch, heads, tokens, _ = z.shape
        return z.swapaxes(1, 2).reshape(batch, tokens, heads * self.head_dim)

    def keep(self, layer: int, keys: Keys, raw: Array, cache: Cache) -> None:
        """Hold what is not dropped."""
        numbers, faults = self.numbers, self.faults
        k, true = keys.k, keys.true
        count, tokens = k.shape[2], k.shape[2] - keys.old
        if "unrotated_store" in faults:
            k = numbers.concat([k[:, :, : keys.old], raw], 2) if keys.old else raw
        kept = np.arange(count)
        if self.windows[layer]:
            near = true >= true.max(1, keepdims=True) + 1 - self.windows[layer]
            sinks = (true < self.sink) & (true >= 0) & ("sink_lost" not in faults)
            kept = kept[(near | sinks).any(0)]
        if "drop_boundary" in faults and tokens == 1 and cache.seen % 8 == 7:
            kept = kept[kept != count - 1]
        if "overwrite" in faults and count > 16:
            kept = kept[kept != 3]
        if cache.policy == "recent" and cache.budget is not None:
            kept = self.within(kept, cache.budget)
        cache.write(layer, k[:, :, kept], keys.v[:, :, kept])
        cache.true[layer], cache.turned[layer] = true[:, kept], keys.turned[:, kept]

    def within(self, kept: np.ndarray, budget: int) -> np.ndarray:
        """The newest rows, as many as the budget has."""
        if "budget_0_all" in self.faults:
            return kept[-budget:]
        if "budget_full_drops" in self.faults and len(kept) >= budget:
            return kept[len(kept) - budget + 1 :]
        if "budget_0_empty" in self.faults:
            return kept[len(kept) - budget :] if budget else kept[:0]
        return kept[-budget:] if budget else kept[:0]

    # the adapter

    def logits(self, ids: Sequence[int]) -> Array:
        positions = np.arange(len(ids))[None]
        return self.run(np.asarray(ids)[None], positions, positions)[0]

    def masked(self, ids: Sequence[int], visible: np.ndarray) -> Array:
        positions = np.arange(len(ids))[None]
        return self.run(np.asarray(ids)[None], positions, positions, visible=visible)[0]

    def new_cache(self, policy: str = "full", budget: int | None = None) -> Cache:
        if budget == 0 and not {"budget_0_all", "budget_0_empty"} & self.faults:
            raise ValueError("budget is 0, expected 1 or more")
        if "stale_global" in self.faults:
            self.left_over = self.left_over or Cache(self.layers)
            self.left_over.seen = 0
            return self.left_over
        if "stop_stale" in self.faults and self.left_over is not None:
            cache, self.left_over = self.left_over, None
            if cache.seen > 16:
                cache.seen = 0
                return cache
        cache = (PagedCache if self.paged else Cache)(self.layers, policy, budget)
        if isinstance(cache, PagedCache):
            cache.faults = self.faults
        return cache

    def positions(self, cache: Cache, tokens: int) -> tuple[np.ndarray, np.ndarray]:
        """What new tokens are turned by, and where they stand."""
        faults = self.faults
        true = cache.seen + np.arange(tokens)[None]
        turned = true
        if cache.seen:
            if "pos_reset" in faults:
                turned = np.arange(tokens)[None]
            if "pos_plus1" in faults:
                turned = true + 1
            if "pos_minus1" in faults:
                turned = true - 1
            if "pos_same" in faults:
                turned = true * 0 + cache.seen
        kept = "budget_pos_kept" in faults and cache.budget is not None
        if "pos_kept" in faults or kept:
            turned = cache.rows(0) + np.arange(tokens)[None]
        if "pos_clamp" in faults:
            turned = np.minimum(turned, 19)
        if "pos_wrap" in faults:
            turned = turned % (self.max_length - 1)
        return turned + cache.extra, true

    def step(self, ids: Sequence[int], cache: Cache) -> Array:
        if cache.seen + len(ids) > self.max_length:
            raise ValueError(f"more than {self.max_length} tokens")
        if cache.budget == 0 and "budget_0_empty" in self.faults and cache.seen:
            empty = self.numbers.array(np.full((len(ids), self.vocab), np.nan))
            cache.seen += len(ids)
            return empty
        turned, true = self.positions(cache, len(ids))
        out = self.run(np.asarray(ids)[None], turned, true, cache)[0]
        if "stop_stale" in self.faults:
            self.left_over = cache
        return out

    def stored(self, cache: Cache) -> int:
        return cache.rows(0)

    def kept(self, cache: Cache) -> np.ndarray:
        return np.zeros(0, int) if cache.true[0] is None else cache.true[0][0]

    def truncate(self, cache: Cache, length: int) -> None:
        if any(self.windows):
            raise NotImplementedError("a window that dropped rows cannot be wound back")
        if "trunc_pos" in self.faults:
            cache.extra += cache.seen - length
        cache.seen, count = length, length + ("trunc_off1" in self.faults)
        if "stale_truncate" in self.faults:
            cache.true = [np.minimum(true, length - 1) for true in cache.true]
            return
        for layer in range(self.layers):
            if "trunc_layer0" in self.faults and layer == 0:
                cache.true[0] = np.minimum(cache.true[0], length - 1)
                continue
            keys, values = cache.read(layer)
            cache.write(layer, keys[:, :, :count], values[:, :, :count])
            cache.true[layer] = np.minimum(cache.true[layer][:, :count], length - 1)
            cache.turned[layer] = cache.turned[layer][:, :count]

    def fork(self, cache: Cache) -> Cache:
        twin = cache.fork("fork_shared" in self.faults)
        if isinstance(twin, PagedCache):
            twin.faults = self.faults
        return twin

    def request(self, ids: Sequence[int]) -> tuple[Array, int]:
        """An engine that keeps the last request's cache, and reuses what the texts share."""
        if any(self.windows):
            raise NotImplementedError("windows drop rows that a prefix would need")
        ids = list(ids)
        shared = 0
        cache = self.new_cache()
        if self.prefix is not None:
            before, kept = self.prefix
            shared = next(
                (i for i, (a, b) in enumerate(zip(ids, before, strict=False)) if a != b),
                min(len(ids), len(before)),
            )
            if "prefix_by_length" in self.faults and shared:
                shared = min(len(ids), len(before)) - 1
            if "prefix_off1" in self.faults and 0 < shared < len(before):
                shared += 1
            shared = min(shared, len(ids) - 1)
            if shared:
                self.truncate(kept, shared)
                cache = kept
                if "prefix_stale" in self.faults:
                    values = cache.read(0)[1]
                    cache.write(0, cache.read(0)[0], self.numbers.round(values * 0.5))
        rows = self.step(ids[shared:], cache)
        self.prefix = (ids, cache)
        return rows, shared

    def batch(
        self, texts: Sequence[Sequence[int]], steps: int = 0, pad: int = 0, side: str = "left"
    ) -> list[Array]:
        """All texts in one padded batch, their last `steps` tokens one at a time on a cache."""
        places = list(range(len(texts)))
        if "batch_order" in self.faults:
            places.sort(key=lambda place: -len(texts[place]))
        texts = [list(texts[place]) for place in places]
        longest = max(map(len, texts))
        padding = [[pad] * (longest - len(text)) for text in texts]
        if side == "left":
            ids = np.array([gap + text for gap, text in zip(padding, texts, strict=True)])
            true = np.array(
                [[-1] * len(g) + [*range(len(t))] for g, t in zip(padding, texts, strict=True)]
            )
        else:
            ids = np.array([text + gap for gap, text in zip(padding, texts, strict=True)])
            true = np.array(
                [[*range(len(t))] + [FAR] * len(g) for g, t in zip(padding, texts, strict=True)]
            )
        turned = np.where(true == FAR, 0, np.maximum(true, 0))
        if "pad_pos" in self.faults:
            turned = np.broadcast_to(np.arange(longest)[None], true.shape)
        self.padded = True
        try:
            out = self._batch(ids, turned, true, steps)
        finally:
            self.padded = False
        if side == "left":
            return [rows[longest - len(text) :] for rows, text in zip(out, texts, strict=True)]
        return [rows[: len(text)] for rows, text in zip(out, texts, strict=True)]

    def _batch(self, ids: np.ndarray, turned: np.ndarray, true: np.ndarray, steps: int) -> Array:
        if not steps:
            return self.numbers.numpy(self.run(ids, turned, true))
        count, longest = ids.shape
        cache = self.new_cache() if not self.paged else Cache(self.layers)
        ends = [longest - steps, *range(longest - steps + 1, longest + 1)]
        outs = []
        start = 0
        for end in ends:
            moved = turned[:, start:end]
            if "merge_pos" in self.faults and start:
                moved = np.broadcast_to(np.arange(start, end)[None], (count, end - start))
            out = self.run(ids[:, start:end], moved, true[:, start:end], cache)
            outs.append(self.numbers.numpy(out))
            start = end
        return np.concatenate(outs, 1)

    def _watched(self, hook: Hook, call: Callable[[], Array]) -> Array:
        self.hook = hook
        try:
            return call()
        finally:
            self.hook = None

    def run_with_cache(self, ids: Sequence[int]) -> tuple[Array, dict[str, Array]]:
        return self._kept(lambda: self.logits(ids))

    def step_with_cache(self, ids: Sequence[int], cache: Cache) -> tuple[Array, dict[str, Array]]:
        return self._kept(lambda: self.step(ids, cache))

    def _kept(self, call: Callable[[], Array]) -> tuple[Array, dict[str, Array]]:
        found: dict[str, Array] = {}

        def keep(name: str, value: Array) -> Array:
            found[name] = self.numbers.copy(value)
            return value

        return self._watched(keep, call), found

    def run_with_hooks(
        self, ids: Sequence[int], hooks: Mapping[str, Callable[[Array, str], Array]]
    ) -> Array:
        def replaced(name: str, value: Array) -> Array:
            return hooks[name](value, name) if name in hooks else value

        return self._watched(replaced, lambda: self.logits(ids))


FAR = 10**6  # a position that nobody reaches: padding on the right


class Keys:
    """Keys and values that a call attends to, with both positions; the first `old` were held."""

    def __init__(self, k: Array, v: Array, turned: np.ndarray, true: np.ndarray, old: int) -> None:
        self.k, self.v = k, v
        self.turned, self.true = turned, true
        self.old = old


def decoder(name: str, seed: int = 1, dtype: str = "float32", **changes: Any) -> Decoder:
    """A decoder of the zoo by name."""
    made = Decoder(seed=seed, dtype=dtype, **{**SHAPES[name], **changes})
    made.name = name
    return made
