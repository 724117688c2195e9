"""Memory over a conversation of 20 turns (claim 6 of the paper), measured and by formula."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import numpy as np

from ..arithmetic import Arithmetic
from ..caches import Cache, Residual
from ..caches.residual import checkpoint_layers
from ..config import SLIDING, ModelConfig
from ..decoder import forward
from ..errors import InputError
from ..model import Model
from ..verify.shapes import SHAPES as SHAPES
from ..verify.shapes import shape
from . import Progress, policy_cache, silent

SETTINGS = (
    "full",
    "residual:every@128",
    "residual:5@128",
    "residual:embedding@128",
    "residual:embedding@32",
    "residual:tokens@32",
)
_TIMED = 3  # tokens a turn that are decoded one by one; the rest of a reply goes in at once

Turn = tuple[list[int], list[int]]  # token ids of what the user says, template included; the reply


def converse(
    model: Model, lines: Sequence[str], reply_tokens: int = 20, progress: Progress = silent
) -> list[Turn]:
    """Hold a conversation, greedily and with the full cache; every reply is cut to a length."""
    tokenizer: Any = model.tokenizer
    cache, messages, spelled, ids, turns = model.new_cache(), [], "", [], list[Turn]()
    for number, line in enumerate(lines):
        messages.append({"role": "user", "content": line})
        text = tokenizer.apply_chat_template(messages)
        if not text.startswith(spelled):
            raise InputError("the model's chat template rewrites earlier turns")
        asked = tokenizer.encode(text[len(spelled) :], add_special=False)
        ids += asked
        reply = list(model.generate(ids[cache.seen :], reply_tokens, cache, stop=()))
        ids += reply
        spelled = text + tokenizer.decode(reply, skip_special=False)
        messages.append({"role": "assistant", "content": spelled[len(text) :]})
        turns.append((asked, reply))
        progress("memory: the conversation", (number + 1) / len(lines))
    return turns


def memory(
    model: Model,
    turns: Sequence[Turn],
    settings: Sequence[str] = SETTINGS,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Feed a conversation to caches and watch their memory, turn by turn.

    Parameters
    ----------
    model : Model
    turns : sequence of (user ids, reply ids)
        All caches get the same tokens.
    settings : sequence of str
        ``policy@budget``, see `policy_cache`.

    Returns
    -------
    list of dict, one for each setting and turn
        ``bytes``: K/V, checkpoints and ids held for the tokens seen, by formula (`Cache.nbytes`).
        ``allocated``: what the cache has allocated after the turn, by tracemalloc.
        ``peak``: the most allocated at any instant of the turn, activations included, likewise.
        ``peak_formula``: see `peak_formula`; None under another arithmetic than float32.
        ``seconds_per_token``: median over the last tokens of the reply, decoded one by one.
    """
    total = sum(len(asked) + len(reply) for asked, reply in turns)
    for layer in model.layers:
        layer.rotary(np.arange(total))  # the tables are the model's, not a cache's
    rows = []
    tracemalloc.start()
    try:
        for done, setting in enumerate(settings):
            for row in _watched(model, turns, setting):
                rows.append(row)
                share = (done + row["turn"] / len(turns)) / len(settings)
                progress(f"memory: {setting}", share)
    finally:
        tracemalloc.stop()
    return rows


def _watched(model: Model, turns: Sequence[Turn], setting: str) -> Iterator[dict[str, Any]]:
    """One setting's rows, by a cache that is gone afterwards."""
    before = tracemalloc.get_traced_memory()[0]
    cache = policy_cache(setting, model.weights)
    for number, (asked, reply) in enumerate(turns):
        tracemalloc.reset_peak()
        one_by_one = reply[-_TIMED:]
        formula, times = 0, []
        for ids in ([*asked, *reply[: -len(one_by_one)]], *([token] for token in one_by_one)):
            start = time.perf_counter()
            forward(model.weights, [ids], [cache])
            times.append(time.perf_counter() - start)
            formula = max(formula, peak_formula(cache, len(ids)))
        allocated, peak = tracemalloc.get_traced_memory()
        yield {
            "setting": setting,
            "turn": number + 1,
            "tokens": cache.seen,
            "bytes": cache.nbytes,
            "allocated": allocated - before,
            "peak": peak - before,
            "peak_formula": formula if model.arithmetic.name == "float32" else None,
            "seconds_per_token": median(times[1:]),
        }


def peak_formula(cache: Cache, new: int) -> int:
    """The most bytes that a float32 call on a cache takes: what is held, and working memory.

    Held is what is allocated: buffers that double (`Full`), rings of `budget` tokens and
    checkpoints in chunks of 256 tokens (`Residual`). Working memory of `Residual`, once a token is
    evicted, is that of one block: its K and V for the whole text; between checkpoints the evicted
    tokens' stream before it; and its activations for one chunk. Of these the larger counts:
    attention's scores for one block of queries, three times, and the weights of the block before,
    no longer than a window where all these layers slide; or the MLP's arrays of width F, four with
    SiLU and five with GELU, or three and its output, which a norm after it takes twice more. What
    lives beside them is added. Left out: norms of queries and keys and biases, which never are all
    that there is, and masks, one byte for the four of each score of one head.

    Parameters
    ----------
    cache : Full or Residual
        After the call.
    new : int
        Tokens of the call.
    """
    config, seen, size = cache.weights.config, cache.seen, 4
    width, kv = config.hidden_size, 2 * config.num_key_value_heads * config.head_dim
    queries, layers = config.attention_width, config.num_hidden_layers
    family, inner = config.family, config.intermediate_size

    def activations(start: int, stop: int, blocks: Sequence[int]) -> int:
        """Of one of these blocks for the tokens at start..stop, beside the stream before it."""
        windows = [config.window(index) or seen for index in blocks]
        scores = before = 0
        for at in range(start, stop, Arithmetic.query_block):
            end = min(at + Arithmetic.query_block, stop)
            own = (end - at) * min(end, max(windows) + end - at - 1)
            scores, before = max(scores, 3 * own + before), own
        heads = 3 * queries + kv * 3 // 2  # the product for q, k and v; q and k turned; the result
        attention = (stop - start) * (width + heads)
        mlp = max(
            (5 if family.hidden_act != "silu" else 4) * inner,
            3 * inner + (3 if family.sandwich_norms else 2) * width,
        )
        after = (stop - start) * (3 * width + heads + mlp)
        return max(attention + scores * config.num_attention_heads, after)

    own = new * width + activations(seen - new, seen, range(layers))
    if not isinstance(cache, Residual):
        return size * (max(64, 1 << (seen - 1).bit_length()) * kv * layers + own)
    kept, ids_only = cache.layers_kept, cache.parameters["checkpoints"] == "tokens"
    held = min(cache.budget, config.max_position_embeddings) * kv * layers
    held += -(-seen // cache.chunk) * cache.chunk * (1 if ids_only else width * len(kept))
    evicted = max(0, seen - new - cache.budget)
    if not evicted:
        return size * (held + own)
    gap = max(b - a for a, b in zip(kept, [*kept[1:], layers], strict=True))
    chunks = [(at, min(at + cache.chunk, evicted)) for at in range(0, evicted, cache.chunk)]
    stream = evicted * width if gap > 1 else 0
    replay = 3 * min(cache.chunk, evicted) * (width + kv) + stream
    if gap > 1:
        replayed = [index for index in range(layers - 1) if index + 1 not in kept]
        replay = max(
            replay,
            *(activations(a, b, replayed) + (stream if gap > 2 else a * width) for a, b in chunks),
        )
    # of the new tokens, while the old are replayed:
    waiting = new * (2 * width + 2 * queries + 3 * kv // 2)
    return size * (held + seen * kv + max(replay + waiting, own + stream))


PAPER_FULL, PAPER_DIRECT, PAPER_TURNS = 103, 42, 20  # MB after so many turns, at gemma-3-4b


def shape_bytes(model: str | ModelConfig, kept: str | int) -> int:
    """Bytes that a token keeps at a model's shape in bfloat16: ``"K/V"``, or checkpoints.

    Examples
    --------
    >>> shape_bytes("gemma-3-4b", "K/V"), shape_bytes("gemma-3-4b", "embedding")
    (139264, 5120)
    """
    config = shape(model) if isinstance(model, str) else model
    if kept == "K/V":
        return config.kv_bytes_per_token("bfloat16")
    checkpoints = len(checkpoint_layers(kept, config.num_hidden_layers))
    return 4 if kept == "tokens" else checkpoints * config.residual_bytes_per_token("bfloat16")


PER_TOKEN = {
    "full_kv": "keys and values of all layers",
    "one_residual": "one residual",
    "kv_per_residual": "  keys and values / one residual",
    "residual_per_layer": "a residual at every layer",
    "residual_per_layer_per_kv": "  residual at every layer / keys and values",
    "token_id": "a token id",
    "unbounded_kv": "keys and values of layers that see all",
    "window_kv": "  and of sliding layers, for all tokens together",
}


def per_token(config: ModelConfig) -> dict[str, dict[str, float]]:
    """What `PER_TOKEN` names, in bytes by dtype; its last two only where layers slide.

    Once their window is full, a cache that drops what no token can see any more holds for sliding
    layers as many tokens as the window, and grows by the others' K and V alone.

    Examples
    --------
    >>> per_token(shape("gemma-3-4b"))["unbounded_kv"]
    {'float32': 40960, 'bfloat16': 20480}
    """
    told: dict[str, dict[str, float]] = {}
    layers, sliding = config.num_hidden_layers, config.layer_types.count(SLIDING)
    for dtype in ("float32", "bfloat16"):
        kv, one = config.kv_bytes_per_token(dtype), config.residual_bytes_per_token(dtype)
        figures = [kv, one, kv / one, layers * one, layers * one / kv, 4]
        if sliding:
            local = kv // layers * sliding
            figures += [kv - local, local * (config.sliding_window or 0)]
        for key, figure in zip(PER_TOKEN, figures, strict=False):
            told.setdefault(key, {})[dtype] = figure
    return told


def accounting(name: str, budgets: Sequence[int] | None = None) -> tuple[list[dict[str, Any]], str]:
    """Bytes held at a model's shape, turn by turn: full cache, and KV-Direct by budget.

    The conversation has as many tokens as make up the paper's 103 MB (of 2**20 bytes) at Gemma
    3-4B's shape, evenly over 20 turns. KV-Direct keeps one residual a token. Working memory is left
    out. The default budgets are 32, 128 and the one at which KV-Direct holds the paper's 42 MB.

    Returns
    -------
    rows, note
        Rows like `memory`'s, and what a reader should know about them.

    Examples
    --------
    >>> rows, _ = accounting("gemma-3-4b", [128])
    >>> rows[-2:]
    [{'setting': 'full', 'turn': 20, 'tokens': 776, 'bytes': 108068864},
     {'setting': 'residual@128', 'turn': 20, 'tokens': 776, 'bytes': 21798912}]
    """
    config, kv, each = shape(name), shape_bytes(name, "K/V"), shape_bytes(name, "embedding")
    paper, rows = paper_budget(2**20), []
    for turn in range(1, PAPER_TURNS + 1):
        seen = round(paper["tokens"] * turn / PAPER_TURNS)
        for budget in (0, *(budgets or (32, 128, paper["budget"]))):
            held = min(seen, budget) * kv + seen * each if budget else seen * kv
            rows.append(
                {
                    "setting": f"residual@{budget}" if budget else "full",
                    "turn": turn,
                    "tokens": seen,
                    "bytes": held,
                }
            )
    note = (
        f"{name} in bfloat16: K and V of a token {kv:,} bytes, one residual {each:,}, one at "
        f"every layer {shape_bytes(name, 'every'):,}.\nBytes held after each turn, without working "
        "memory: K and V of the newest `budget` tokens, one residual for each.\n"
    )
    if window := config.sliding_window:
        figures = per_token(config)
        note += (
            f"K and V count at all layers, as in the paper. After {window} tokens the sliding ones "
            f"need {figures['window_kv']['bfloat16']:,} bytes and no more,\nthe others "
            f"{figures['unbounded_kv']['bfloat16']:,} a token.\n"
        )
    for size, given in (("10^6", paper_budget(10**6)), ("2^20", paper)):
        note += (
            f"With MB = {size} bytes, the paper's 103 MB are {given['tokens']} tokens of "
            f"Gemma 3-4B, and 42 MB is a budget of {given['budget']}.\n"
        )
    return rows, note + "Our accounting: the paper states neither layout nor length nor its MB."


def paper_budget(megabyte: int) -> dict[str, int]:
    """The tokens that 103 MB of full cache are, and the budget at which KV-Direct holds 42 MB.

    Examples
    --------
    >>> paper_budget(10**6)
    {'tokens': 740, 'budget': 274}
    """
    kv, each = shape_bytes("gemma-3-4b", "K/V"), shape_bytes("gemma-3-4b", "embedding")
    tokens = round(PAPER_FULL * megabyte / kv)
    return {"tokens": tokens, "budget": (PAPER_DIRECT * megabyte - tokens * each) // kv}
