# %% [markdown]
# # 9. Fast: what limits a decoder, and what would make it faster
#
# After this chapter you can count the bytes and operations of a decoding step and of a prefill,
# place both on a roofline that you measured on your own machine, and say what limits each. You
# will also know what exact arithmetic costs, and which changes cannot help.
#
# *Time*: 100 minutes, 60 of them for the exercises. *Needs*: chapters 1 and 5 and the model
# `smollm2-135m-instruct` (`minikv fetch`). Close other programs: this chapter measures time, and
# its numbers are those of the machine that ran it.

# %%
import importlib
import os
import time

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy is imported; see below

import matplotlib.pyplot as plt
import numpy as np

import minikv
from minikv import plots
from minikv.arithmetic import get_arithmetic
from minikv.experiments import machine
from minikv.fingerprint import fingerprint
from minikv.model import Model

plt.rcParams.update({"font.size": 13, "figure.constrained_layout.use": True, "figure.dpi": 110})


def seconds(call, repeats=5):
    """Processor time of the shortest of some runs, after one to warm up."""
    call()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return min(taken)


# %% [markdown]
# BLAS gets one thread here, and `process_time` counts the seconds that this process had a
# processor: with one thread that is the time on a machine with nothing else to do. Other programs
# still take their share of the memory's bandwidth, so we take the shortest of several runs:
# whatever disturbs a run makes it longer, nothing makes it shorter.
#
# ## Counting
#
# A product of a $(T, K)$ matrix with a $(N, K)$ weight takes $2 T N K$ floating-point operations
# (FLOP; a multiplication and an addition each), and must read the weight once: $N K s$ bytes at
# $s$ bytes a number. Everything else in a block is small beside its matrices, except attention
# over a long text: per new token, $4 H d S$ operations over $S$ stored tokens, whose $K$ and $V$
# are $2 G d S s$ bytes a layer. **Arithmetic intensity** is operations per byte.


# %%
def work(config, tokens, context, itemsize):
    """(FLOP, bytes) of one call: `tokens` new tokens of one text, behind `context` stored ones."""
    d = config.head_dim
    q, kv = config.num_attention_heads * d, 2 * config.num_key_value_heads * d
    block = config.hidden_size * (q + kv + q + 3 * config.intermediate_size)
    head = config.vocab_size * config.hidden_size  # logits of the last token alone
    layers = config.num_hidden_layers
    attended = sum(context + t + 1 for t in range(tokens))
    flop = 2 * tokens * layers * block + 2 * head + 4 * q * layers * attended
    read = itemsize * (layers * block + head + layers * kv * (context + tokens))
    return flop, read


model = minikv.load("smollm2-135m-instruct")
config = model.config
for name, tokens, context in (
    ("decode, short text", 1, 16),
    ("decode, 2,048 tokens", 1, 2048),
    ("prefill of 16", 16, 0),
    ("prefill of 256", 256, 0),
):
    flop, read = work(config, tokens, context, 4)
    print(f"{name:21} {flop / 1e9:7.2f} GFLOP {read / 1e6:7.1f} MB {flop / read:7.1f} FLOP/byte")

# %% [markdown]
# One decoding step reads 539 MB, nearly all of it weights, to do a quarter of a GFLOP: half an
# operation a byte. Each weight is used for one multiplication and one addition, and then not
# again until the next token. A prefill reads the same weights once for all its tokens.
#
# How long must a text be until its K and V weigh as much as the weights?

# %%
weights = work(config, 1, 0, 4)[1] - config.kv_bytes_per_token()
print(f"{weights // config.kv_bytes_per_token():,} tokens")

# %% [markdown]
# Below that, a smaller cache cannot make this model decode much faster: most bytes are weights.
# (With large batches it is otherwise: weights are shared among texts, caches are not.)
#
# ## Two ceilings of this machine
#
# A program that does $I$ operations per byte cannot do more operations per second than
#
# $$P(I) = \min(P_{\max},\; I \cdot B)$$
#
# with $P_{\max}$ what the processor can compute and $B$ the bytes per second that memory delivers
# (Williams, Waterman and Patterson, 2009). $B$ we take from reading an array far larger than any
# cache, $P_{\max}$ from a square matrix product. Both are what NumPy reaches, not what the data
# sheet says.

# %% tags=["varies"]
large = np.ones(32 << 20, dtype=np.float32)
rows = large.reshape(-1, 4096)
vector = np.ones(4096, dtype=np.float32)
bandwidth = large.nbytes / min(seconds(large.sum), seconds(lambda: rows @ vector))
peak = {}
for dtype in (np.float32, np.float64):
    square = np.ones((1536, 1536), dtype=dtype)
    peak[dtype.__name__] = 2 * 1536**3 / seconds(lambda a=square: a @ a)
print(machine())
print(f"memory: {bandwidth / 1e9:.0f} GB/s")
for name, value in peak.items():
    print(
        f"{name}: {value / 1e9:.0f} GFLOP/s; memory-bound below {value / bandwidth:.1f} FLOP/byte"
    )

# %% [markdown]
# ## The roofline
#
# Now the decoder itself: one step, then prefills of growing length.

# %% tags=["varies"]
ids = model.tokenizer.encode("Once upon a time there was a small lighthouse by the sea. " * 24)[
    :256
]


def step(model, context=16):
    cache = model.new_cache()
    model.forward([ids[:context]], [cache], "none")

    def call():
        model.forward([[ids[0]]], [cache])
        cache.truncate(context)

    return call


cases = {"decode": (1, 16, seconds(step(model), 9))}
for length in (4, 16, 64, 256):
    taken = seconds(lambda n=length: model.forward([ids[:n]]), 2)
    cases[f"prefill {length}"] = (length, 0, taken)

intensity = np.logspace(-1, 3, 200)
figure, axes = plt.subplots(figsize=(10, 5.2))
for number, name in enumerate(peak):
    roof = np.minimum(peak[name], intensity * bandwidth) / 1e9
    axes.plot(intensity, roof, color=plots.COLOURS[number], linewidth=2.5,
              linestyle=("-", "--")[number], label=f"{name} roof")  # fmt: skip
for number, (name, (tokens, context, taken)) in enumerate(cases.items()):
    flop, read = work(config, tokens, context, 4)
    axes.plot(flop / read, flop / taken / 1e9, color="black", marker=plots.MARKERS[number],
              markersize=11, linestyle="none", label=name)  # fmt: skip
    share = flop / taken / min(peak["float32"], flop / read * bandwidth)
    print(f"{name:12} {1e3 * taken:7.1f} ms {flop / taken / 1e9:6.1f} GFLOP/s, "
          f"{100 * share:3.0f} % of the roof")  # fmt: skip
axes.set(xscale="log", yscale="log", ylim=(0.5, 200))
axes.set_yticks([1, 10, 100], ["1", "10", "100"])
axes.set_xlabel("arithmetic intensity (FLOP / byte)")
axes.set_ylabel("speed (GFLOP/s)")
axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1))
plt.show()

# %% [markdown]
# Decoding is the leftmost point, far to the left of the flat part. **The ceiling above it is
# memory's, not arithmetic's**: a processor that computes twice as fast would not lift it; half
# the bytes per weight would. What is missing up to the slope is software: Python's time for
# thirty blocks, and a matrix-vector product that does not draw all that memory can give. (When
# the numbers shown here were taken, other programs were drawing on the same memory.) Long
# prefills lie under the flat part; what is missing there is mostly attention, norms and SwiGLU,
# which NumPy does in passes of their own over memory. Short prefills are in between, and far
# below both roofs: a product with a few rows is neither the matrix-vector nor the large matrix
# product that BLAS is tuned for.
#
# ## More texts in a step
#
# If weights are what is read, let them serve several texts: a batch of $b$ texts reads them once
# and does $b$ times the work.

# %% tags=["varies"]
batches, per_token = (1, 2, 4, 8, 16), []
for batch in batches:
    caches = [model.new_cache() for _ in range(batch)]
    model.forward([ids[:16]] * batch, caches, "none")

    def call(caches=caches):
        model.forward([[ids[0]]] * len(caches), caches)

    per_token.append(1e3 * seconds(call, 5) / batch)
figure, axes = plt.subplots(figsize=(9, 4.4))
axes.plot(batches, per_token, color=plots.COLOURS[0], marker="o", markersize=9, linewidth=2.5,
          label="measured")  # fmt: skip
bound = [1e3 * max(work(config, 1, 16, 4)[1] / bandwidth / b,
                   work(config, 1, 16, 4)[0] / peak["float32"]) for b in batches]  # fmt: skip
axes.plot(batches, bound, color=plots.COLOURS[1], marker="s", markersize=8, linewidth=2,
          linestyle="--", label="roofline")  # fmt: skip
axes.set_xscale("log", base=2)
axes.set_xticks(batches, [str(b) for b in batches])
axes.set_ylim(bottom=0)
axes.set_xlabel("texts in the batch")
axes.set_ylabel("time per token (ms)")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# The dashed line is the least that the two ceilings allow. The measured one shows how much of it
# this BLAS gets with so few rows: sharing the weights pays in full only with larger batches. Each
# text's own attention, which is not shared, adds its part.
#
# ## What exactness costs
#
# `exact` (chapter 3) holds weights as float64: twice the bytes, and half the operations per vector
# instruction. So a factor of about two is to be expected, on either side of the roofline. Rounding
# to grids comes on top; what does not depend on the width, such as Python's own time, dilutes it.

# %% tags=["varies"]
exact = minikv.load("smollm2-135m-instruct", "exact")
for name, call in (
    ("decode", step),
    ("prefill 64", lambda m: lambda: m.forward([ids[:64]])),
):
    fast, slow = seconds(call(model), 5), seconds(call(exact), 5)
    print(
        f"{name:11} float32 {1e3 * fast:6.1f} ms, exact {1e3 * slow:6.1f} ms, "
        f"{slow / fast:.1f} times as long"
    )

# %% [markdown]
# ## Other array libraries
#
# minikv's arithmetic takes an array namespace, `xp`. Any library that follows the array API
# standard and has IEEE float64 can run the forward pass, on another device too. Under `exact` it
# must give the same bits; `proofs/portability.py` checks that for kernels, threads, SIMD levels
# and libraries. Here are the namespaces of that script, on a small random model, as far as they
# are installed.

# %% tags=["varies"]
tiny = minikv.tiny_config(max_position_embeddings=64)
tensors = minikv.random_tensors(tiny, seed=7)
text = [i * i * 31 % tiny.vocab_size for i in range(20)]
for library in ("numpy", "array_api_strict", "array_api_compat.torch", "jax.numpy"):
    try:
        if library.startswith("jax"):
            importlib.import_module("jax").config.update("jax_enable_x64", True)
        xp = importlib.import_module(library)
    except ImportError:
        print(f"{library:24} not installed")
        continue
    prints = []
    for name in ("float32", "exact"):
        arithmetic = get_arithmetic(name, context=tiny.max_position_embeddings, xp=xp)
        prints.append(fingerprint(Model(minikv.build(tiny, tensors, arithmetic)), text)[:12])
    print(f"{library:24} float32 {prints[0]}   exact {prints[1]}")

# %%
exact_tiny = Model(minikv.build(tiny, tensors, get_arithmetic("exact", context=64)))
print("exact:", fingerprint(exact_tiny, text)[:12], "(the same on every machine)")

# %% [markdown]
# A compiled backend, such as one with Numba, does not exist in minikv at present. The roofline
# says what one could gain. For decoding: at most the way from the leftmost point up to the slope,
# since the bytes stay the same. For more, weights must become smaller, which changes the model
# (quantisation), or serve more than one token per reading (batches, or several guessed tokens
# checked in one call).
#
# And the paper's claim that recomputing K and V is faster than reading them? By bytes,
# recomputing one layer's $2Gd$ numbers from a residual means reading $D$. For SmolLM $2Gd = 384 <
# 576 = D$: more bytes *and* more arithmetic, so it cannot win here on either roof. With
# multi-head attention, $2Gd = 2D$, there is room: exercise 4. `minikv latency` measures it.
#
# ## Exercises
#
# Replace the body, run the cell, and read what the check says. Solutions are in
# [`solutions/s09.py`](solutions/s09.py); try first.

# %%
from exercises import e09

# %% [markdown]
# ### 9.1 Under the roof (one star, 5 minutes)
#
# What can a kernel of this `intensity` (FLOP/byte) reach, in FLOP/s, on a machine with this
# `bandwidth` (bytes/s) and `peak` (FLOP/s)?
#
# <details><summary>Hint</summary>
#
# The formula above; mind the units: one of the two must be multiplied.
#
# </details>


# %%
def attainable(intensity, bandwidth, peak):
    return peak  # replace this


_ = e09.check_attainable(attainable)

# %% [markdown]
# ### 9.2 The bytes of one step (two stars, 15 minutes)
#
# Bytes that one decoding step must read, at `itemsize` bytes a number, behind `context` stored
# tokens: all matrices of all blocks, the output matrix, and the stored K and V of all layers.
# Leave out norms, the one row of the embedding, and the new token's own K and V. `config` has
# Hugging Face's names.
#
# <details><summary>Hint</summary>
#
# q_proj and o_proj have `num_attention_heads * head_dim` rows or columns, k_proj and v_proj
# `num_key_value_heads * head_dim`; the MLP has three matrices.
#
# </details>


# %%
def step_bytes(config, context, itemsize):
    return itemsize * config.vocab_size * config.hidden_size  # replace this


_ = e09.check_step_bytes(step_bytes)

# %% [markdown]
# ### 9.3 The batch that is large enough (two stars, 20 minutes)
#
# A `(b, K)` input times an `(N, K)` weight reads the weight and the input, and writes the output,
# each once. Return the smallest batch `b` for which it is bound by arithmetic, i.e. its intensity
# is at least `ridge` (FLOP/byte), or `None` if no batch is large enough.
#
# <details><summary>Hint</summary>
#
# As b grows, the intensity approaches, but does not reach, 2 N K / (s (N + K)). Solve for b, and
# do not trust the division: try the neighbours.
#
# </details>


# %%
def enough(n, k, itemsize, ridge):
    return 1  # replace this


_ = e09.check_enough(enough)

# %% [markdown]
# ### 9.4 Read or recompute? (three stars, 20 minutes)
#
# For one stored token and layer: reading K and V moves `2 * G * d` numbers. Recomputing moves `D`
# numbers, and does `4 * D * G * d` operations meanwhile; take the longer of the two times
# (perfect overlap). Return `time to recompute / time to read` for `itemsize` bytes a number.
#
# <details><summary>Hint</summary>
#
# Three times: numbers * itemsize / bandwidth twice, and operations / peak.
#
# </details>


# %%
def recompute_ratio(D, G, d, itemsize, bandwidth, peak):
    return 1.0  # replace this


_ = e09.check_recompute_ratio(recompute_ratio)

# %% [markdown]
# With your solution, try multi-head attention at SmolLM2-1.7B's shape (`D = 2048, G = 32, d =
# 64`): what `peak` is needed, at this machine's bandwidth, for a ratio below 1? That is the
# regime in which the paper's claim 8 can hold.
