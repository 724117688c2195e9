"""The faults that are planted, each with its kind and the public report whose root cause it has.

Root causes alone are taken from reports; no code is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ALL = ("gpt", "llama", "window", "evict", "paged", "moe")
ROTARY = ("llama", "window", "evict", "paged", "moe")
FULL = ("gpt", "llama", "paged", "moe")  # nothing is dropped
WINDOWED = ("window", "evict")


@dataclass(frozen=True)
class Fault:
    """A fault that a decoder may have.

    Attributes
    ----------
    kind : str
        The name that `minikv.conform.kinds` should give it.
    families : tuple of str
        Decoders that it applies to.
    narrow : bool
        Whether it is in the narrow dtype only, so that the twin in float64 is good.
    reported : str
        Where its root cause was reported.
    no_fault_in : tuple of str
        Dtypes in which it changes nothing or next to nothing.
    """

    kind: str
    families: tuple[str, ...] = ALL
    narrow: bool = False
    reported: str = ""
    no_fault_in: tuple[str, ...] = ()


RESTART = "positions restart in the chunk"
OFF_BY_ONE = "a position off by one"
SLICED = "the mask sliced by new tokens"
FUTURE = "the mask of a chunk lets the future in"
UNCACHED_FUTURE = "the uncached mask lets the future in"
NEWEST = "the newest row dropped"
ROW_LOST = "a row lost"
MOD_32 = "a length that is no multiple of 32"
STORE = "a coarser K/V store"
STALE = "stale rows after truncate"
ROTATED = "stored keys rotated wrongly"
HEADS = "the order of K/V heads"
WINDOW = "a window off by one"
KEPT = "kept rows taken for positions"
BUDGET = "a budget that is not kept to"
PREFIX = "a stale prefix"
NARROW = "the narrow dtype only"
MIXED = "rows of the batch mixed"

FAULTS: Mapping[str, Fault] = {
    # positions
    "pos_reset": Fault(RESTART, reported="transformers#48289"),
    "pos_plus1": Fault(OFF_BY_ONE),
    "pos_minus1": Fault(OFF_BY_ONE, reported="mlx-lm#1396"),
    "pos_same": Fault("one position for a whole chunk"),
    "pos_clamp": Fault("positions clamped"),
    "pos_wrap": Fault("the end of the context", ("gpt",)),
    "pos_kept": Fault(KEPT, WINDOWED, reported="VeloxQuant-MLX#389"),
    # masks
    "mask_own_chunk": Fault(SLICED, reported="LLMs-from-scratch#697"),
    "mask_top": Fault(SLICED, reported="LLMs-from-scratch#697"),
    "chunk_open": Fault(FUTURE),
    "chunk_offset": Fault(FUTURE),
    "future_uncached": Fault(UNCACHED_FUTURE),
    "future_both": Fault(UNCACHED_FUTURE),
    # rows
    "own_row_hidden": Fault(NEWEST),
    "v_shift": Fault(NEWEST),
    "skip_key0": Fault(ROW_LOST),
    "drop_boundary": Fault(ROW_LOST, reported="sglang#22819"),
    "overwrite": Fault(ROW_LOST, FULL),
    "mod32": Fault(MOD_32, reported="mlx#3856"),
    "mod32_uncached": Fault(MOD_32, reported="mlx#3856"),
    # the mathematics of attention
    "scale_cached": Fault("the softmax scale"),
    "softmax_extra": Fault("the softmax denominator"),
    "eps_cached": Fault("another norm on the cache"),
    "final_norm": Fault("another path for one token", reported="mlx-lm#1189"),
    "q_unrotated": Fault("the query is not rotated", ROTARY),
    "base_cached": Fault("another rotary base", ROTARY),
    "rerotate": Fault(ROTATED, ROTARY, reported="fak, keys re-rotated"),
    "unrotated_store": Fault(ROTATED, ROTARY),
    "gqa_tile": Fault(HEADS, ROTARY),
    "gqa_tile_k": Fault(HEADS, ROTARY),
    # the store
    "kv_float16": Fault(STORE, no_fault_in=("float16", "bfloat16")),
    "kv_bfloat16": Fault(STORE, no_fault_in=("bfloat16",)),
    "kv_int8": Fault(STORE, no_fault_in=("bfloat16",)),
    # state between calls
    "nondet": Fault("not deterministic", reported="vllm#51187"),
    "stateful": Fault("state left by earlier calls"),
    "stale_global": Fault("a cache shared between texts", reported="vllm#5543"),
    "fork_shared": Fault("fork shares storage"),
    "stop_stale": Fault("a cache shared between texts", reported="vllm#5543"),
    # truncation
    "trunc_pos": Fault("the position after truncate", FULL),
    "stale_truncate": Fault(STALE, FULL),
    "trunc_layer0": Fault(STALE, FULL),
    "trunc_off1": Fault(STALE, FULL),
    # batches
    "norm_batch": Fault(MIXED),
    "batch_order": Fault("the order in the batch"),
    "batch_share": Fault("rows of the batch mixed on the cache"),
    "pad_seen": Fault("padding attended"),
    "pad_seen_cached": Fault("padding attended on the cache"),
    "pad_seen_right": Fault("right padding attended"),
    "pad_pos": Fault("left padding counted as positions", ("gpt",)),
    "merge_pos": Fault("merged caches with old positions", reported="maclocal-api#92"),
    # windows
    "window_plus1": Fault(WINDOW, WINDOWED),
    "window_minus1": Fault(WINDOW, WINDOWED),
    "window_none": Fault("a window missing", WINDOWED),
    "window_all": Fault("a window in the wrong layers", ("window",)),
    "window_both": Fault(WINDOW, ("evict",)),
    "sink_lost": Fault("sinks lost", ("evict",)),
    # budgets
    "budget_0_all": Fault(BUDGET, FULL, reported="a budget of 0 that keeps all"),
    "budget_0_empty": Fault(BUDGET, FULL, reported="a budget of 0 that empties the cache"),
    "budget_full_drops": Fault(BUDGET, FULL),
    "budget_pos_kept": Fault(KEPT, FULL, reported="VeloxQuant-MLX#389"),
    # prefixes
    "prefix_by_length": Fault(PREFIX, FULL, reported="transformers#34164"),
    "prefix_off1": Fault(PREFIX, FULL, reported="sglang#22819"),
    "prefix_stale": Fault(PREFIX, FULL, reported="sglang#34683"),
    # pages
    "page_order": Fault(ROW_LOST, ("paged",)),
    "page_shared": Fault("fork shares storage", ("paged",)),
    "page_boundary": Fault(ROW_LOST, ("paged",), reported="sglang#22819"),
    # the stream is not all
    "value_residual": Fault("K or V are not made of the stream", ("llama", "gpt")),
    "keys_of_layer_0": Fault("K or V are not made of the stream", ("llama", "gpt")),
    # in the narrow dtype only, and on one path
    "narrow_table": Fault(NARROW, ROTARY, narrow=True),
    "narrow_softmax": Fault(NARROW, narrow=True),
    "narrow_values": Fault(NARROW, narrow=True),
    "narrow_head_uncached": Fault(NARROW, narrow=True),
    "narrow_values_uncached": Fault(NARROW, narrow=True),
    # alike in all ways
    "base_both": Fault("alike in all ways", ("llama",)),
    "scale_both": Fault("alike in all ways", ("llama",)),
}


def faults_of(decoder: str, dtype: str) -> list[str]:
    """The faults that apply to a decoder of the zoo in a dtype."""
    family = decoder.split("-")[0]
    return [
        name
        for name, fault in FAULTS.items()
        if family in fault.families
        and dtype not in fault.no_fault_in
        and not (fault.narrow and family == "moe")  # a turned choice is an error of its own
    ]
