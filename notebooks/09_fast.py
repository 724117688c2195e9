# %% [markdown]
# # 9. Fast: what limits a decoder, and what would make it faster
#
# After this chapter you can count the bytes and operations of a decoding step and of a prefill,
# place both on a roofline that you measured on your own machine, and say what limits each. You
# will also know what exact arithmetic costs, why a compiler may make it fast without touching a
# bit, and which changes cannot help.
#
# *Time*: 145 minutes, 90 of them for the exercises. *Needs*: chapters 1, 3 and 5 and the model
# `smollm2-135m-instruct` (`minikv fetch`), which is held in four ways: 4 GB of memory. Close other
# programs: this chapter measures time, and its numbers are those of the machine that ran it.

# %%
import importlib.util
import math
import os
import time

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy is imported; see below
os.environ["NUMBA_NUM_THREADS"] = "1"

import matplotlib.pyplot as plt
import numba
import numpy as np

import minikv
from minikv.experiments import machine, plots
from minikv.fingerprint import fingerprint
from minikv.model import Model
from minikv.weights import load_tensors

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


def in_turn(calls, repeats=9):
    """The same for several calls by name, one after the other, so that all meet the same noise."""
    taken = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            taken[name].append(time.process_time() - start)
    return {name: min(times[1:]) for name, times in taken.items()}


# %% [markdown]
# BLAS gets one thread here, and `process_time` counts the seconds that this process had a
# processor: with one thread that is the time on a machine with nothing else to do. Other programs
# still take their share of the memory's bandwidth, so we take the shortest of several runs:
# whatever disturbs a run makes it longer, nothing makes it shorter.
#
# ## 9.1 Counting
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
#
# **Predict before you run.** This model's K and V take 46,080 bytes a token, its weights 538 MB.
# After how many tokens is the cache as large as the weights?
#
# <details><summary>Answer</summary>After some 12,000, which is more than its context of 8,192. For
# one short text a smaller cache cannot make decoding much faster.</details>

# %%
weights = work(config, 1, 0, 4)[1] - config.kv_bytes_per_token()
print(f"{weights // config.kv_bytes_per_token():,} tokens")

# %% [markdown]
# Far below that most bytes are weights, and a smaller cache cannot make it decode much faster. At
# the end of this model's context, 8,192 tokens, it can; and so it can with large batches, where
# weights are shared among texts and caches are not.
#
# ## 9.2 Two ceilings of this machine
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
# ## 9.3 The roofline
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

# %% tags=["varies", "hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(10, 5.2))
for number, name in enumerate(peak):
    roof = np.minimum(peak[name], intensity * bandwidth) / 1e9
    axes.plot(
        intensity,
        roof,
        color=plots.COLOURS[number],
        linewidth=2.5,
        linestyle=("-", "--")[number],
        label=f"{name} roof",
    )
for number, (name, (tokens, context, taken)) in enumerate(cases.items()):
    flop, read = work(config, tokens, context, 4)
    axes.plot(
        flop / read,
        flop / taken / 1e9,
        color="black",
        marker=plots.MARKERS[number],
        markersize=11,
        linestyle="none",
        label=name,
    )
    share = flop / taken / min(peak["float32"], flop / read * bandwidth)
    print(
        f"{name:12} {1e3 * taken:7.1f} ms {flop / taken / 1e9:6.1f} GFLOP/s, "
        f"{100 * share:3.0f} % of the roof"
    )
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
# ## 9.4 More texts in a step
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

    per_token.append(1e3 * seconds(call, 9) / batch)

# %% tags=["varies", "hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(9, 4.4))
axes.plot(
    batches,
    per_token,
    color=plots.COLOURS[0],
    marker="o",
    markersize=9,
    linewidth=2.5,
    label="measured",
)
bound = [
    1e3
    * max(work(config, 1, 16, 4)[1] / bandwidth / b, work(config, 1, 16, 4)[0] / peak["float32"])
    for b in batches
]
axes.plot(
    batches,
    bound,
    color=plots.COLOURS[1],
    marker="s",
    markersize=8,
    linewidth=2,
    linestyle="--",
    label="roofline",
)
axes.set_xscale("log", base=2)
axes.set_xticks(batches, [str(b) for b in batches])
axes.set_ylim(bottom=0)
axes.set_xlabel("texts in the batch")
axes.set_ylabel("time per token (ms)")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# The dashed line is the least that the two ceilings allow. The measured one shows how much of it
# this BLAS gets with so few rows. From one text to two it may even rise: BLAS leaves its
# matrix-vector kernel, and its kernel for matrices is slow with so few. Sharing the weights pays in
# full only with larger batches. Each text's own attention, which is not shared, adds its part.
#
# ## 9.5 What exactness costs
#
# `exact` (chapter 3) rounds each row of weights to a grid of 21 bits and adds in float64. BLAS
# wants both factors in float64, so under NumPy the weights are held in 8 bytes: twice the bytes,
# and half the operations per vector instruction. A factor of about two is to be expected, on
# either side of the roofline. Rounding to grids comes on top; what does not depend on the width,
# such as Python's own time, dilutes it.

# %% tags=["varies"]
exact = minikv.load("smollm2-135m-instruct", "exact")
both = {"float32": model, "exact": exact}
for what, calls in (
    ("decode", {name: step(each) for name, each in both.items()}),
    ("prefill 64", {name: lambda m=each: m.forward([ids[:64]]) for name, each in both.items()}),
):
    fast, slow = in_turn(calls, 4).values()
    print(
        f"{what:11} float32 {1e3 * fast:6.1f} ms, exact {1e3 * slow:6.1f} ms, "
        f"{slow / fast:.1f} times as long"
    )

# %% [markdown]
# ## 9.6 What a compiler may do to a sum
#
# Eight bytes are BLAS's wish, not the arithmetic's: a weight of 21 bits fits into a float32, and
# what must be wide is the sum. A loop of our own can read 4 bytes and add in float64. Python's
# loops are slow; Numba compiles them. Here is the inner loop of a matrix-vector product, compiled
# twice.


# %%
def dot(x, w):
    total = 0.0
    for j in range(len(x)):
        total += x[j] * w[j]
    return total


in_order = numba.njit(dot)
any_order = numba.njit(fastmath={"reassoc", "contract"})(dot)

# %% [markdown]
# The first adds as it is written: each addition waits for the one before it. The second has been
# allowed two things: to *reassociate*, that is to add in another order, for example in eight sums
# side by side in a vector register that are added up at the end; and to *contract* a product and
# a sum into one instruction that rounds once (a fused multiply-add). For floating-point numbers
# in general that changes the result, so a compiler does it only if told. How much is it worth?

# %% tags=["varies"]
ones = np.ones(1 << 14)
for name, kernel in (("in order", in_order), ("any order", any_order)):
    taken = seconds(lambda kernel=kernel: [kernel(ones, ones) for _ in range(200)])
    print(f"{name:9} {2 * 200 * ones.size / taken / 1e9:5.1f} GFLOP/s")

# %% [markdown]
# And what does it cost? Take 200 pairs of random rows as they come, and the same rows rounded to
# a grid, the multiples of $2^{-17}$. On the grid a product is a multiple of $2^{-34}$, and 576 of
# them, each smaller than 64, add up to less than $2^{16}$: every partial sum, in *any* order, is
# an integer below $2^{50}$ times $2^{-34}$. A float64 holds that exactly, so nothing is ever
# rounded, and there is nothing that an order could change (T7).

# %%
raw = np.random.default_rng(0).standard_normal((200, 2, 576))
grid = np.rint(raw * 2.0**17) * 2.0**-17
assert np.abs(grid).max() < 8
same = [in_order(x, w) == any_order(x, w) == math.fsum(x * w) for x, w in grid]
print("on the grid:", sum(same), "of", len(same), "sums have the same bits in both, and are exact")

# %% [markdown]
# The control, without the grid:

# %% tags=["varies"]
differ = [in_order(x, w) != any_order(x, w) for x, w in raw]
print("as they come:", sum(differ), "of", len(differ), "sums have other bits")

# %% [markdown]
# So **exactness makes fastmath safe**: where no order can matter, the compiler may choose the
# fastest. Only in the sums, though. The rounding to the grid itself is written as $(x + s) - s$
# with a large $s$, and someone who may reassociate sees at once that this is $x$:


# %% tags=["varies"]
def to_grid(x, s):
    return (x + s) - s


shift = 1.5 * 2.0**52 * 2.0**-17
print("as written:   ", numba.njit(to_grid)(math.pi, shift))
print("with fastmath:", numba.njit(fastmath=True)(to_grid)(math.pi, shift))

# %% [markdown]
# That is why [`minikv/backends/numba_exact.py`](../minikv/backends/numba_exact.py) gives the
# permission function by function, to eight: seven do nothing but add numbers on a grid, one
# also calls the rounding, which is compiled apart.
#
# ## 9.7 The same bits from fewer bytes
#
# `backend="numba"` is the same decoder with such kernels: a few rows by all weights, attention
# over the cache, RMSNorm, RoPE, SwiGLU. More rows go through the same sums in tiles. Weights
# lie in 4 bytes. If a checkpoint was bfloat16, its numbers have 8 digits, rounding to the grid
# adds none, and 2 bytes are enough. SmolLM2's weights as fetched here are not; to see what 2 bytes
# give we cut them off to bfloat16, which is **another model**. Its time is of interest, its
# fingerprint is not that of the others.

# %%
few = ids[:12]
compiled = minikv.load("smollm2-135m-instruct", "exact", backend="numba")
prints = {
    "NumPy, in one call": fingerprint(exact, few),
    "Numba, in one call": fingerprint(compiled, few),
    "Numba, token by token": fingerprint(compiled, few, chunks=1),
}
for name, print_ in prints.items():
    print(f"{name:22} {print_[:32]}...")
print("the same 64 digits:", len(set(prints.values())) == 1)

# %% tags=["varies"]
halves = {
    name: (np.ascontiguousarray(tensor).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    for name, tensor in load_tensors(model.folder, config).items()
}
short = Model(minikv.build(config, halves, "exact", "numba"))
del halves


def held(model):
    """Bytes of the matrices that a step reads, as they lie in memory."""
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    matrices = [getattr(layer, name) for layer in model.layers for name in names]
    return sum(getattr(m, "values", m).nbytes for m in [*matrices, model.weights.lm_head])


every = {
    "float32, NumPy": model,
    "exact, NumPy": exact,
    "exact, Numba": compiled,
    "exact, Numba, bfloat16": short,
}
calls = {name: step(each) for name, each in every.items()}
decode = in_turn(calls | {"read": lambda: any_order(large, large)}, 18)
bandwidth = max(bandwidth, large.nbytes / decode.pop("read"))
print(f"memory: {bandwidth / 1e9:.0f} GB/s")
least = {name: held(each) / bandwidth for name, each in every.items()}
for name, taken in decode.items():
    print(
        f"{name:23} {1e3 * taken:6.1f} ms a token, {taken / decode['float32, NumPy']:.2f} of "
        f"float32; to read its bytes takes {1e3 * least[name]:5.1f} ms"
    )
pair = {"NumPy": exact, "Numba": compiled}
prefill = in_turn({at: lambda m=each: m.forward([ids[:64]]) for at, each in pair.items()}, 2)
print(", ".join(f"prefill of 64 on {at}: {1e3 * t:.0f} ms" for at, t in prefill.items()))

# %% tags=["varies", "hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(10, 4.4))
for row, (name, taken) in enumerate(decode.items()):
    axes.barh(row, 1e3 * taken, color=plots.COLOURS["NumPy" not in name], height=0.62)
    axes.text(1e3 * max(taken, least[name]), row, f"  {1e3 * taken:.0f} ms", va="center")
    axes.plot(
        2 * [1e3 * least[name]],
        [row - 0.42, row + 0.42],
        color="black",
        linewidth=3,
        label=None if row else "least time to read the bytes",
    )
labels = [f"{name}\n{held(each) / 1e6:.0f} MB of weights" for name, each in every.items()]
axes.set_yticks(range(len(labels)), labels)
axes.invert_yaxis()
axes.set_xlim(right=1.15e3 * max(decode.values()))
axes.set_xlabel("processor time per token (ms), one thread")
axes.legend(frameon=False, loc="lower right")
plt.show()

# %% [markdown]
# The compiled exact step takes less time than NumPy's float32, although every bit of it can be
# checked on any machine. A black line is the roofline's word: the bytes of the weights over the
# bandwidth, measured once more, in turn with the steps, by the compiled sum. That one may read
# faster than NumPy did above: a measured ceiling is only as high as the best program that was
# tried. Numba's 4-byte bar comes nearest to its line. With 2-byte weights the line moves far and
# the bar does not follow so far: one thread needs much of its time to widen weights and to add.
# Threads have arithmetic of their own and share the memory, so that with several of them 2 bytes
# gain more ([docs/benchmarks.md](../docs/benchmarks.md) has figures).
#
# A short prefill gains little: for more than 8 tokens both backends hand float64 matrices to
# BLAS, and Numba has to widen its weights first. What it gains is the rest: rounding, softmax and
# SwiGLU go over the numbers fewer times than in NumPy.
#
# ## 9.8 Other array libraries
#
# The decoder and its arithmetics take all they need from an array namespace, `xp`. Any library
# that follows the array API standard and has IEEE float64 can stand there, on another device too,
# and `backend=` names those that minikv knows ([docs/backends.md](../docs/backends.md)).
# `array_api_strict` is of no use but for this: it refuses whatever the standard does not promise.
# Under `exact` all must give the same bits. Here they are, as far as installed, on a small random
# model.

# %%
tiny = minikv.tiny_config(max_position_embeddings=64)
tensors = minikv.random_tensors(tiny, seed=7)
text = [i * i * 31 % tiny.vocab_size for i in range(20)]


def tiny_print(arithmetic, backend):
    return fingerprint(Model(minikv.build(tiny, tensors, arithmetic, backend)), text)[:12]


golden = tiny_print("exact", "numpy")
print("exact:", golden, "(the same on every machine)")

# %% tags=["varies"]
needs = {"torch": "array_api_compat", "jax": "jax", "cupy": "cupy"}
print(f"{'backend':18}{'float32':15}exact")
for backend in ("numpy", "numba", "torch", "array_api_strict", "jax", "cupy"):
    if any(importlib.util.find_spec(name) is None for name in (backend, needs.get(backend, "os"))):
        print(f"{backend:18}not installed")
        continue
    row = [tiny_print(arithmetic, backend) for arithmetic in ("float32", "exact")]
    print(f"{backend:18}{row[0]:15}{row[1]} {'' if row[1] == golden else 'DIFFERENT'}")

# %% [markdown]
# One column is constant, and the other is not where a library brings its own matrix product, as
# Numba's kernels for `float32` do ([docs/backends.md](../docs/backends.md)); `array_api_strict`
# computes with NumPy. `proofs/portability.py` varies BLAS kernels, threads and SIMD levels as
# well.
#
# ## 9.9 What is left
#
# The roofline says what more one could gain. For decoding: at most the way from a bar to its
# black line, since the bytes stay the same. For more, weights must become smaller, which changes
# the model (quantisation), or serve more than one token per reading (batches, or several guessed
# tokens checked in one call).
#
# And the paper's claim that recomputing K and V is faster than reading them? By bytes,
# recomputing one layer's $2Gd$ numbers from a residual means reading $D$. For SmolLM $2Gd = 384 <
# 576 = D$: more bytes *and* more arithmetic, so it cannot win here on either roof. With
# multi-head attention, $2Gd = 2D$, there is room: exercise 9.6. `minikv latency` measures it.
#
# ## What to take along
#
# * Decoding one text is bound by the bytes of the weights, a long prefill by arithmetic: the
#   roofline tells which, before anything is tuned.
# * A sum that does not round may be reordered, by a compiler too; any other may not.
# * Fewer bytes for the same numbers are faster and give the same bits; fewer digits are another
#   model.
#
# ## References
#
# * Williams, Waterman and Patterson 2009, [*Roofline*](https://doi.org/10.1145/1498765.1498785):
#   section 9.3.
# * [Numba](https://numba.readthedocs.io/), and the [array API
#   standard](https://data-apis.org/array-api/latest/).
# * [Other array libraries](../docs/backends.md) and [benchmarks](../docs/benchmarks.md): with
#   figures.
# * Words: the [glossary](../docs/glossary.md).
#
# ## Exercises
#
# Replace the body of each function, and run the cell: the check says what is wrong, as often as
# you like.

# %%
from exercises import e09

# %% [markdown]
# ### Exercise 9.1: under the roof (one star, 5 minutes)
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
# ### Exercise 9.2: the bytes of one step (two stars, 15 minutes)
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
# ### Exercise 9.3: the batch that is large enough (two stars, 20 minutes)
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
# ### Exercise 9.4: a sum in lanes (two stars, 15 minutes)
#
# Write what a compiler makes of `dot` when it may reassociate: `lanes(x, w, n)` keeps `n` sums, `n`
# a power of two. Sum `i` adds up the products at the places `j` with `j % n == i`, in ascending
# order from 0.0; then, as long as there is more than one sum, the second half is added to the
# first: sum `i` takes sum `i + n // 2`, and `n` is halved. Lengths need not be multiples of `n`.
#
# <details><summary>Hint</summary>
#
# `sums[j % n] += x[j] * w[j]`; then `sums[:half]` plus `sums[half:]`, until one is left. The check
# compares exactly, on rows for which the order matters.
#
# </details>


# %%
def lanes(x, w, n):
    return sum(float(a) * float(b) for a, b in zip(x, w, strict=True))  # replace this


_ = e09.check_lanes(lanes)

# %% [markdown]
# ### Exercise 9.5: how many bytes are enough? (two stars, 15 minutes)
#
# Given float64 weights, return the fewest bytes a weight, 2, 4 or 8, in which *all* of them can be
# stored without losing a bit: as bfloat16 (2), float32 (4) or float64 (8). A bfloat16 is the upper
# half of a float32.
#
# <details><summary>Hint</summary>
#
# Go there and back: does `w.astype(np.float32)` still equal `w`? Then look at its lower 16 bits,
# with `.view(np.uint32)`. NumPy's `float16` is another format.
#
# </details>


# %%
def bytes_enough(w):
    return w.itemsize  # replace this


_ = e09.check_bytes_enough(bytes_enough)

# %% [markdown]
# With your solution: what does it say of `exact.layers[0].q_proj.values`, which NumPy's BLAS
# wants in 8 bytes? And what do `compiled` and `short` keep in that place?

# %% [markdown]
# ### Exercise 9.6: read or recompute? (three stars, 20 minutes)
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
# regime in which the paper's claim that recomputing is faster than reading can hold.

# %% [markdown]
# <details><summary>Solutions</summary>
#
# In [solutions/s09.py](solutions/s09.py).
#
# </details>

# %% [markdown]
# *Before*: [8. Proving: how to know that it is true, and that your test can
# fail](08_proving.ipynb). *Next*: [10. Conform: your own cache, and whether a difference is
# rounding or a bug](10_conform.ipynb).
