# %% [markdown]
# # 5. Cache, no cache, checkpoints
#
# After this chapter you can count the bytes that a decoder keeps for a token,
# trade them for time along a whole frontier, and say where the published claim about memory
# holds and what it leaves out.
#
# *Time*: 150 minutes, 60 of them for the exercises. *Needs*: chapter 4 and, for the timings, the
# weights of `smollm2-135m-instruct` (`minikv fetch`); all counts are exact and need no weights.

# %%
import io
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small products: threads would only wait

import matplotlib.pyplot as plt
import numpy as np
from exercises import e05, unless_solved
from exercises.paper import paper_figure
from IPython.display import Image

import minikv
from minikv.experiments import plots
from minikv.experiments.accounting import accounting, shape_bytes
from minikv.experiments.frontier import frontier
from minikv.experiments.memory import memory
from minikv.experiments.plots import COLOURS
from minikv.shapes import SHAPES

plt.rcParams.update({"font.size": 13, "figure.dpi": 90, "figure.constrained_layout.use": True})


def draw(plot, *arguments):
    """Show one of the figures of minikv.experiments.plots."""
    file = io.BytesIO()
    plot(*arguments[:1], file, *arguments[1:])
    return Image(data=file.getvalue(), width=900)


# %% [markdown]
# ## 5.1 Three ways to remember
#
# To decode the next token, attention needs K and V of all earlier tokens at all layers. There are
# three ways to have them.
#
# * **Cache**: keep them.
# * **No cache**: keep the token ids, and run the whole text again at every step (T3).
# * **Checkpoints**: keep some rows of the residual stream, and make K and V from them when they
#   are needed: by one projection where the checkpoint is at the layer itself (T1), by running the
#   blocks from the nearest checkpoint below where it is not (T5).
#
# ![Of 8 tokens the newest 3 keep keys and values. All keep one residual row; from the first 5 the
# blocks run again and make keys and values anew.](pictures/kv_direct.svg)
#
# KV-Direct ([arXiv 2603.19664](https://arxiv.org/abs/2603.19664)) is a mixture: the newest `budget`
# tokens keep K and V, and *all* tokens keep a checkpoint, from which those beyond the budget are
# recomputed. In minikv each way is a cache policy. We try them on a random model with the
# proportions of SmolLM-135M at a third of its width: 30 blocks, 3 query heads on one K/V head.
#
# **Predict before you run.** Six ways to remember one text of 40 tokens. Which holds the least,
# which the most, and which of them change a bit of the logits?
#
# <details><summary>Answer</summary>No cache holds the least, 4 bytes a token, and a residual at
# every layer the most: more than K and V themselves. None changes a bit.</details>

# %%
thin = minikv.ModelConfig(
    vocab_size=512,
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=30,
    num_attention_heads=3,
    num_key_value_heads=1,
    head_dim=64,
    max_position_embeddings=1024,
)
model = minikv.random_model(thin, 0, "exact")
ids = np.random.default_rng(0).integers(0, 512, 40).tolist()

policies = {
    "full": ("full", {}),
    "none": ("none", {}),
    "every layer": ("residual", {"budget": 8, "checkpoints": "every"}),
    "every 5th layer": ("residual", {"budget": 8, "checkpoints": 5}),
    "embedding": ("residual", {"budget": 8, "checkpoints": "embedding"}),
    "token ids": ("residual", {"budget": 8, "checkpoints": "tokens"}),
}


def decode(policy, parameters):
    """The logits after a prompt of 36 tokens and after each of four more; bytes held at the end."""
    cache = model.new_cache(policy, **parameters)
    rows = [model.forward([ids[:36]], [cache])[0]]
    rows += [model.forward([[token]], [cache])[0] for token in ids[36:]]
    return np.array(rows), cache.nbytes


expected, _ = decode("full", {})
for label, (policy, parameters) in policies.items():
    logits, held = decode(policy, parameters)
    same = np.array_equal(logits.view(np.uint32), expected.view(np.uint32))
    print(f"{label:16} holds {held:9,} bytes for 40 tokens; same bits: {same}")

# %% [markdown]
# ### Write 5.1: no cache (one star, 10 minutes)
#
# The second line, by hand: the logits after the first `start` tokens and after each later one, one
# row each, by running the whole text again every time. `model.logits(ids)` gives the logits of all
# positions of a text, (T, V).
#
# <details><summary>Hint</summary>The texts are <code>ids[:n]</code> for <code>n</code> from
# <code>start</code> to <code>len(ids)</code>, and the last row of each is
# <code>model.logits(ids[:n])[-1]</code>.</details>


# %%
def without_cache(model, ids, start):  # -> (len(ids) - start + 1, V)
    return None


_ = e05.check_without_cache(without_cache)


# %% tags=["solution", "hide-input"] jupyter={"source_hidden": true}
@unless_solved(without_cache)
def without_cache(model, ids, start):
    return np.array([model.logits(ids[:n])[-1] for n in range(start, len(ids) + 1)])


# %%
again = without_cache(model, ids, 36)
print(
    "no cache, by hand: same bits:", np.array_equal(again.view(np.uint32), expected.view(np.uint32))
)

# %% [markdown]
# Six ways, the same bits. This is theorem T4 at work: whatever a schedule keeps as K and V and
# whatever as residuals, decoding is the same. What differs is what it costs, and for that one has
# to count.
#
# ## 5.2 Bytes
#
# Let a model have $L$ layers, $G$ key/value heads of width $d$, a stream of width $D$, and numbers
# of $s$ bytes. One token keeps
#
# $$ \text{K and V: } 2 L G d s, \qquad \text{one residual: } D s,
# \qquad \text{a residual at every layer: } L D s. $$
#
# So KV-Direct with a checkpoint at $c$ of the layers holds, after $n$ tokens with budget $b$,
#
# $$ \min(n, b) \cdot 2 L G d s \;+\; n \, c \, D s . $$
#
# ### Write 5.2: count a token (one star, 5 minutes)
#
# Return two numbers of bytes: what K and V of one token take in all layers, and what one residual
# takes. `config` has `num_hidden_layers`, `num_key_value_heads`, `head_dim` and `hidden_size`;
# `itemsize` is $s$.
#
# <details><summary>Hint</summary>
#
# There are `config.num_hidden_layers` layers, each with
# a key *and* a value for each of `config.num_key_value_heads` heads. A residual of one
# token is one row: `config.hidden_size` numbers.
#
# </details>


# %%
def token_bytes(config, itemsize):  # -> bytes of K and V, bytes of one residual
    return None


_ = e05.check_token_bytes(token_bytes)


# %% tags=["solution", "hide-input"] jupyter={"source_hidden": true}
@unless_solved(token_bytes)
def token_bytes(config, itemsize):
    keys = config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return 2 * keys * itemsize, config.hidden_size * itemsize


# %%
kv, one = token_bytes(thin, 4)
print(f"K/V {kv:,} bytes a token, one residual {one:,}, ratio {kv / one:.0f}")
for label, kept in (("every layer", 30), ("every 5th layer", 6), ("embedding", 1)):
    print(f"{label:16} {min(40, 8) * kv + 40 * kept * one:9,} bytes")

# %% [markdown]
# These are the numbers that the caches reported. Look at the first one again: *a residual at every
# layer takes more than K and V*. It does so in most models of today.
#
# ## 5.3 Grouped-query attention changes the sign
#
# With one key/value head for each query head, $G d = D$, K and V take $2LD$ numbers and a residual
# at every layer takes $LD$, half of it. Grouped-query attention shares K/V heads, so $G d$ is well
# below $D$, and for
#
# $$ 2 G d < D $$
#
# the residual is the larger of the two. From the published shapes, in bfloat16:

# %%
print(f"{'':29} {'K/V':>9} {'one residual':>13} {'saves':>6} {'every layer':>12} {'of K/V':>7}")
for name in SHAPES:
    a, b, c = (shape_bytes(name, kept) for kept in ("K/V", "embedding", "every"))
    print(f"{name:29} {a:9,} {b:13,} {a / b:5.1f}x {c:12,} {c / a:7.2f}")

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(10, 5.5))
at = np.arange(len(SHAPES))
kinds = (("K/V", "K and V"), ("every", "a residual at every layer"), ("embedding", "one residual"))
for number, (kept, label) in enumerate(kinds):
    height = [shape_bytes(name, kept) / 1024 for name in SHAPES]
    axes.bar(
        at + 0.27 * (number - 1),
        height,
        0.27,
        label=label,
        color=COLOURS[number],
        hatch=("", "//", "..")[number],
        edgecolor="white",
    )
axes.set_yscale("log")
axes.set_xticks(at, list(SHAPES), rotation=30, ha="right")
axes.set_ylabel("kept for a token (KiB, bfloat16)")
figure.legend(frameon=False, loc="outside upper left", ncols=3)
plt.show()

# %% [markdown]
# Only two save by a residual at every layer: SmolLM-1.7B, which does not share K/V heads, and Qwen3
# 0.6B, whose eight K/V heads are together as wide as its stream. All models save by *one* residual
# a token, by a factor of 5 to 56. Gemma 3-4B is the paper's example: 136 KB against 5 KB. But one
# residual, at layer 0, is nothing but the embedding of the token: to get K and V of layer 17 back
# from it, seventeen blocks must run again, for *all* evicted tokens. The saving is real, and it is
# bought with time.
#
# The paper has it both ways. Its memory formula (equation 28) and its table 1 count one vector a
# token; its algorithm 1 stores one for each layer, and equation 26 counts the cost of that. [The
# paper, claim by claim](../docs/paper.md) runs both: the first needs replay (T5), the second is a
# projection (T1) and saves memory in one of the paper's six models. Its table 1 needs no more than
# counting, so run the claim here:

# %%
from minikv.paper.claim import Setting
from minikv.paper.claims import CLAIMS

table_1 = CLAIMS["table-1"].run(Setting(True, (), minikv.load))
print(f"{'model':30} {'the paper, KB':>28} {'K/V':>9} {'one residual':>13} {'every layer':>12}")
for row in table_1.rows:
    print(f"{row[0]:30} {row[1]:>28} {row[2]:9,} {row[3]:13,} {row[6]:12,}")
print(f"\n{table_1.verdict}: {sum(row[5] for row in table_1.rows)} of 6 lines as printed")

# %% [markdown]
# (For layers with sliding-window attention, which Gemma 3 has, the full cache would hold less than
# we count. The paper's 136 KB counts all 34 layers in full, and so do we.)
#
# ## 5.4 A conversation of 20 turns
#
# The paper reports that over 20 turns KV-Direct holds its peak memory at 42 MB, where the standard
# cache grows past 103 MB. It does not state the layout or the length. 103 MB (of 2^20 bytes each;
# 108 of 10^6, as in the plot below) are 776 tokens at Gemma 3-4B's shape, so let the conversation
# have so many, evenly over the turns, and count:

# %%
rows, note = accounting("gemma-3-4b")
print(note)

# %%
draw(plots.memory, rows, "Gemma 3-4B's shape, bfloat16, by counting")

# %% [markdown]
# The full cache grows in a straight line. KV-Direct grows as fast until its budget is full, and
# then by one residual a token: 5 KB instead of 136 KB. It is not flat; "bounded" is the part with
# K and V. With a budget of 32 the checkpoints are nearly half of what is held at the end.
#
# The curve leaves out what a step needs *while it runs*. We measure that on the thin model in
# float32: `allocated` is what the cache has allocated after a turn, and `peak` the most that was
# allocated at any instant of the turn, activations included.

# %% tags=["varies"]
thin32 = minikv.random_model(thin, 0)
rng = np.random.default_rng(1)
turns = [(rng.integers(0, 512, 7).tolist(), rng.integers(0, 512, 5).tolist()) for _ in range(20)]
settings = ("full", "residual:every@32", "residual:embedding@32")
measured = memory(thin32, turns, settings)
for row in measured:
    if row["turn"] == 20:
        print(
            f"{row['setting']:22} {row['tokens']} tokens: held {row['bytes'] / 1e6:.2f} MB, "
            f"allocated {row['allocated'] / 1e6:.2f}, peak {row['peak'] / 1e6:.2f}, "
            f"{1000 * row['seconds_per_token']:.0f} ms a token"
        )

# %% tags=["varies", "hide-input"] jupyter={"source_hidden": true}
figure, panels = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True)
for panel, key, title in zip(
    panels, ("bytes", "peak"), ("held after the turn", "peak in the turn"), strict=True
):
    for number, setting in enumerate(settings):
        line = [row[key] / 1e6 for row in measured if row["setting"] == setting]
        panel.plot(range(1, 21), line, color=COLOURS[number], marker="osD"[number], label=setting)
    panel.set_title(title, loc="left", fontsize=13)
    panel.set_xlabel("turn")
    panel.set_xticks([1, 5, 10, 15, 20])
    panel.grid(alpha=0.3)
panels[0].set_ylabel("MB (10⁶ bytes)")
panels[0].legend(frameon=False)
plt.show()

# %% [markdown]
# On the right the lines lie higher, and grow in steps: the full cache doubles its buffers when
# they are full, and checkpoints are allocated for 256 tokens at a time. A step of KV-Direct also
# needs K and V of one block for the whole text, the replayed stream at one layer, and one chunk's
# activations. It goes layer by layer, so this does not grow with the number of layers; it does
# grow with the text. A comparison that counts only what is held is not a comparison of memory.
# With so short a text, the peak of the third line is hardly below that of the full cache.
#
# ## 5.5 The frontier
#
# Between "every layer" and "the embedding alone" lie all sets of layers. Let the set of
# checkpoints be $C$, with $0 \in C$. To have K and V at all $L$ layers again, each layer needs its
# stream. Where it is a checkpoint, it is there. Where it is not, the block below must run. So
#
# $$ \text{bytes a token} = |C| \cdot D s, \qquad
# \text{blocks run for each evicted token} = L - |C| . $$
#
# *How* the checkpoints are spaced makes no difference to the number of blocks. Both are linear in
# $|C|$: the frontier, counted in blocks, is a straight line, without a sweet spot. (The plot
# below has a logarithmic axis of bytes, on which a straight line is bent.)
#
# **Predict before you run.** Checkpoints at every second layer, against every layer: half of the
# bytes. How many of the 30 blocks must run again for an evicted token?
#
# <details><summary>Answer</summary>15: one block for each layer that has no checkpoint.</details>

# %%
print("every k-th layer | checkpoints | bytes a token (SmolLM-135M, float32) | blocks run")
for k in (1, 2, 3, 5, 10, 15, 30):
    kept = len(range(0, 30, k))
    print(f"{k:16} | {kept:11} | {kept * 576 * 4:36,} | {30 - kept:10}")
print("K and V themselves:", 30 * 2 * 3 * 64 * 4, "bytes, no block")

# %% [markdown]
# With the real weights, in float32, we evict 64 tokens and time one step of decoding for each set
# of checkpoints, less the same step with the full cache.

# %% tags=["varies"]
real = minikv.load("smollm2-135m-instruct")
points = frontier(real, evicted=64, repeats=3, checkpoints=["every", 2, 5, "embedding", "tokens"])
for point in points:
    print(
        f"{point['checkpoints']:10} {point['bytes']:7,} bytes a token, step "
        f"{1000 * point['step_seconds']:6.0f} ms, recompute "
        f"{1e6 * point['recompute_seconds']:6.0f} µs a token"
    )

# %% tags=["varies"]
draw(plots.frontier, points, "SmolLM2-135M, 64 tokens evicted, on the machine that ran this")

# %% [markdown]
# Times are those of the machine that ran this notebook, with few repetitions; run it on yours.
# What to look for:
#
# * A checkpoint at every layer is cheap in time, one projection, and dearer in bytes than K and V:
#   where $2 G d < D$, as here, this point is worse than the plain cache in *both* respects.
# * The other points pay with blocks. From 15 checkpoints to one the bytes fall 15 times, the
#   blocks rise from 15 to 29, not even twice: if one is willing to replay at all, the embedding is
#   the place to replay from.
# * Token ids are smaller still, 4 bytes, and cost one table look-up more. **The embedding
#   checkpoint holds nothing that the token id does not.** In this model "one residual per token"
#   is a long way to write the text.
#
# ## 5.6 The honest sum
#
# A replay costs a prefill of the evicted tokens, and decoding pays it at *every step*. For $m$ new
# tokens after $n$ evicted ones this is about $m \cdot n$ token-passes through nearly all blocks,
# where the full cache needs $m$. It can be worth it when memory is the limit and steps are few, or
# where reading K and V is slower than computing them, as the paper reports for moderate batches on
# its hardware; on a CPU, and here, it is not (`minikv latency` measures it; `minikv paper --figure
# 7` does by the paper's own protocol, which counts no replay).
#
# Here is that figure: the time to make K and V of $N$ rows from residuals, divided by the time to
# copy them, for the shapes that the paper names.
#
# **Predict before you run.** A projection reads $D$ numbers a row and writes $2 G d$; a copy reads
# $2 G d$ and writes as many. Where memory alone decides, how small can the ratio of the times be?
#
# <details><summary>Answer</summary>
#
# $(D + 2Gd) / 4Gd$: more than one half, however small a residual is. The paper prints 0.17 at 500
# rows.
#
# </details>

# %% tags=["varies"]
paper_figure("figure-7")

# %% [markdown]
# Below the line at 1 recomputing wins. The grey curves are the paper's, the others ours; the
# drawing is that of [The paper, claim by claim](../docs/paper.md#figure-7), which also says how the
# paper's curve can come about.
#
# What is beyond doubt is the *logical* claim: K and V are redundant. What they are is a way not to
# compute the same thing twice, and a good one.
#
# ## What to take along
#
# * Cache, no cache and any checkpoints give the same bits (T3, T4, T5).
# * Under grouped-query attention a residual at every layer is mostly larger than K and V (where
#   $2 G d < D$). Only few checkpoints save memory, and they cost a replay at every step.
# * Count what is held, what is allocated and what the peak is; they are three numbers.
#
# ## References
#
# * Qasim et al. 2026, *The Residual Stream Is All You Need*, [arXiv
#   2603.19664](https://arxiv.org/abs/2603.19664): KV-Direct; [The paper, claim by
#   claim](../docs/paper.md) runs all of it.
# * Ainslie et al. 2023, *GQA*, [arXiv 2305.13245](https://arxiv.org/abs/2305.13245): why the sign
#   changes.
# * [The experiments](../docs/experiments.md): memory, frontier and latency on real weights, in
#   full.
# * Words: the [glossary](../docs/glossary.md).
#
# ## Exercises
#
# Replace the body of each function, and run the cell: the check says what is wrong, as often as
# you like.

# %% [markdown]
# ### Exercise 5.1: what KV-Direct holds (one star, 10 minutes)
#
# Write `held(config, seen, budget, kept)`: bytes after `seen` tokens, in float32, with K and V of
# the newest `budget` tokens and residuals of all tokens at `kept` layers. `config` is a
# `ModelConfig`.
#
# <details><summary>Hint</summary>
#
# Can there be more tokens in the budget than have been seen? How many heads do K and V have?
#
# </details>


# %%
def held(config, seen, budget, kept):
    return 0  # replace this


_ = e05.check_held(held)

# %% [markdown]
# ### Exercise 5.2: which blocks run again? (two stars, 15 minutes)
#
# Write `blocks_run(layers, kept)`: the indices, ascending, of the blocks that must run to have the
# stream before each of the `layers` blocks, given checkpoints before the layers in `kept` (which
# contains 0).
#
# <details><summary>Hint</summary>
#
# Block $l$ makes the stream before block $l + 1$. Is the last block ever needed?
#
# </details>


# %%
def blocks_run(layers, kept):
    return list(range(layers))  # replace this


_ = e05.check_blocks_run(blocks_run)

# %% [markdown]
# ### Exercise 5.3: the largest budget that fits (two stars, 15 minutes)
#
# You have `total` bytes for a text of `seen` tokens. K and V of a token take `kv` bytes, a
# checkpoint takes `each`. Write `largest_budget(total, seen, kv, each)`: the largest number of
# tokens, at most `seen`, whose K and V can be kept beside the checkpoints of all; `None` if not
# even the checkpoints fit.
#
# <details><summary>Hint</summary>
#
# The paper's 42 MB: `largest_budget(42 * 2**20, 776, 139264, 5120)` is 287.
#
# </details>


# %%
def largest_budget(total, seen, kv, each):
    return min(seen, total // kv)  # repair this


_ = e05.check_largest_budget(largest_budget)

# %% [markdown]
# ### Exercise 5.4: recompute from the nearest checkpoint (three stars, 20 minutes)
#
# Write `recompute(model, checkpoints, layer)`: keys and values that block `layer` attends to, as
# `kv_from_residual` gives them. `checkpoints` is a dictionary from a layer to the stream before
# it, `(T, D)`; it contains layer 0. Start from the *nearest* checkpoint at or below `layer`.
#
# <details><summary>Hint</summary>
#
# `max(l for l in checkpoints if l <= layer)`, then exercise 4.4.
#
# </details>


# %%
def recompute(model, checkpoints, layer):
    stream = checkpoints[0]
    return minikv.kv_from_residual(stream, np.arange(len(stream)), model.layers[layer])  # repair


_ = e05.check_recompute(recompute)

# %% [markdown]
# <details><summary>Solutions</summary>
#
# In [solutions/s05.py](solutions/s05.py).
#
# </details>

# %% [markdown]
# *Before*: [4. The Markov property](04_markov.ipynb). *Next*: [6. Eviction: what you lose when you
# forget](06_eviction.ipynb).
