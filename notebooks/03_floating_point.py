# %% [markdown]
# # 3. Floating point: the same row, other bits
#
# After this chapter you can say why one row of a matrix product has other bits in a batch than
# alone, and show how such a difference grows through thirty layers. You can arrange a sum so that
# no order of addition changes it, and say what it costs. And you compute 64 digits that must be
# the same on your machine as on everybody else's.
#
# *Time*: 120 minutes, 65 of them for the exercises. *Needs*: chapter 1 (what a decoder adds up);
# the [setup of the course](README.md), with the weights; 3 GB of memory; no GPU.

# %%
import math
import os
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
from exercises import e03, unless_solved

import minikv
from minikv.experiments.plots import COLOURS, MARKERS
from minikv.fingerprint import PROMPT, fingerprint

plt.rcParams |= {"font.size": 14, "figure.constrained_layout.use": True}
plt.rcParams |= {"axes.spines.top": False, "axes.spines.right": False}

# %% [markdown]
# ## 3.1 Three numbers
#
# A float32 holds 24 binary digits and a power of two. From $2^{24}$ on its neighbours are 2 apart,
# so $2^{24} + 1$ does not exist, and an addition that hits it must round. What follows is not an
# accident of a machine: IEEE 754 prescribes every bit of it.
#
# **Predict before you run.** Add 2^24, 1 and 1 in float32, once from the left and once from the
# right. Do both give 16,777,218?
#
# <details><summary>Answer</summary>Only from the right. From the left each 1 is lost by itself,
# for 2^24 + 1 is no float32.</details>
#
# ![2^24 + 1 + 1 + 1 in float32: one by one gives 16,777,216, in pairs gives
# 16,777,218.](pictures/sum_tree.svg)

# %%
a, b, c = np.float32(2**24), np.float32(1), np.float32(1)
print("(a + b) + c =", int((a + b) + c))
print("a + (b + c) =", int(a + (b + c)))

# %% [markdown]
# The first line loses both ones, each by itself; the second adds them first. Neither is a bug. Each
# single addition is as good as it can be: the result is the float32 nearest to the true sum,
#
# $$\mathrm{fl}(a + b) = (a + b)(1 + \delta), \qquad |\delta| \le u = 2^{-24}.$$
#
# But rounding after *every* addition makes the sum of many numbers depend on who is added to whom
# first.

# %% [markdown]
# ## 3.2 One number of the model, in a thousand orders
#
# We take one number that SmolLM2 really computes: the first output of the MLP of block 5 for one
# token, a sum of 1,536 products. We fix the products and add them up in a thousand random orders.

# %%
text = (
    "The lighthouse at Carn Point had been dark for eleven years when Ines Varga bought it at an "
    "auction that nobody else attended. She was forty-two, a retired watchmaker, and she had never "
    "lived by the sea."
)
model = minikv.load("smollm2-135m-instruct", "float32")
ids = model.tokenizer.encode(text)
_, activations = model.run_with_cache(ids)
hidden = activations["blocks.5.mlp.hook_post"]  # (T, F)
matrix = model.layers[5].down_proj  # (D, F)
print("rows", hidden.shape, "matrix", matrix.shape)

# %% tags=["varies"]
terms = hidden[10] * matrix[0]  # float32 (F,)
true = math.fsum(map(float, terms))
unit = float(
    np.spacing(np.float32(true))
)  # the distance between neighbouring float32 numbers there
rng = np.random.default_rng(0)
sums = [float(np.cumsum(rng.permutation(terms), dtype=np.float32)[-1]) for _ in range(1000)]
print(f"{len(set(sums))} different results in 1000 orders; the true sum is {true:.9f}")

n, u = len(terms), 2.0**-24
bound = n * u / (1 - n * u) * float(np.abs(terms.astype(np.float64)).sum())
worst = max(abs(s - true) for s in sums)
print(f"largest error {worst:.1e}, and Higham's bound for any order {bound:.1e}")

# %% tags=["varies", "hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(10, 4.5))
axes.hist((np.array(sums) - true) / unit, bins=40, color=COLOURS[0])
axes.axvline(0, color=COLOURS[1], linewidth=3, label="true sum")
axes.set_xlabel("float32 result minus true sum (units in the last place)")
axes.set_ylabel("orders of addition")
axes.set_title("One sum, a thousand orders", loc="left")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# Every order gives an honest result: the error of a sum of $n$ terms $t_i$ is at most $\gamma_n
# \sum_i |t_i|$ with $\gamma_n = nu / (1 - nu)$ (Higham, *Accuracy and Stability of Numerical
# Algorithms*, chapter 4), and these errors are far below that bound. They are not wrong, they are
# merely *different*, and a comparison of bits sees that.

# %% [markdown]
# ## 3.3 The row that differs from itself
#
# You never choose the order: the matrix library (BLAS) does, and it chooses by shape. For one row
# it runs a matrix-vector product; for many rows it cuts both matrices into tiles that fit the
# processor. Here is one row, multiplied alone and in company.
#
# **Predict before you run.** One row of a matrix product, computed with 40 others and computed
# alone: the same bits?
#
# <details><summary>Answer</summary>Not in general: the library takes another way for one row than
# for many, and adds in another order. How many numbers differ depends on the machine.</details>

# %% tags=["varies"]
together = (hidden @ matrix.T)[:1]
alone = hidden[:1] @ matrix.T
print(f"{np.sum(together != alone)} of {alone.size} numbers of row 0 differ")
print(f"by at most {np.abs(together - alone).max():.1e}, where the row reaches {alone.max():.1f}")

# %% [markdown]
# This is the difficulty of our subject. "Recomputing keys and values gives the same bits" is true
# of the formulas. In ordinary float32 it is false as soon as the prompt was read as one batch of
# many rows and the recomputation, or the decoding, takes rows one by one.

# %% [markdown]
# ## 3.4 Thirty layers later
#
# A difference in the last bit of block 0 is the input of block 1. We feed the same text in one call
# and token by token, and compare the stream after each block. As a judge of who is closer to the
# truth we also run it in float64.

# %%
names = [f"blocks.{layer}.hook_resid_post" for layer in range(model.config.num_hidden_layers)]


def streams(model, chunks):
    """The stream after every block, (L, T, D), with the text fed in calls of these lengths."""
    cache, parts, start = model.new_cache(), {}, 0

    def keep(name, value):
        parts.setdefault(name, []).append(value)
        return value

    for count in chunks:
        model.forward([ids[start : start + count]], [cache], logits="none", hook=keep)
        start += count
    return np.array([np.concatenate(parts[name]) for name in names])


def distance(x, y):
    """How far two streams are apart after each block: median over rows of |x - y| / |y|."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    return np.median(np.linalg.norm(x - y, axis=2) / np.linalg.norm(y, axis=2), axis=1)


one_call, by_token = [len(ids)], [1] * len(ids)
plain = [streams(model, one_call), streams(model, by_token)]
reference = streams(minikv.load("smollm2-135m-instruct", "float64"), one_call)
exact_model = minikv.load("smollm2-135m-instruct", "exact")
exact = [streams(exact_model, one_call), streams(exact_model, by_token)]
differ = (exact[0].view(np.uint32) != exact[1].view(np.uint32)).sum()
print(f"exact arithmetic: {differ} of {exact[0].size:,} numbers differ between the two ways")

# %% tags=["varies"]
print(f"float32: {np.mean(plain[0] != plain[1]):.0%} of the numbers differ between the two ways")
curves = {
    "float32: one call against token by token": distance(plain[1], plain[0]),
    "float32 against float64": distance(plain[0], reference),
    "exact against float64": distance(exact[0], reference),
}

# %% tags=["varies", "hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(10, 5.5))
for number, (label, curve) in enumerate(curves.items()):
    axes.plot(
        curve,
        label=label,
        color=COLOURS[number],
        marker=MARKERS[number],
        markersize=8,
        linewidth=2.5,
    )
axes.axhline(2.0**-24, color="black", linestyle="--")
axes.annotate(
    "$2^{-24}$, one rounding", (29, 2.0**-24), (0, -20), textcoords="offset points", ha="right"
)
axes.set_yscale("log")
axes.set_ylim(3e-8, 5e-6)
axes.set_xlabel("after block")
axes.set_ylabel("relative distance of a row (median)")
axes.set_title("Rounding through thirty blocks", loc="left")
axes.grid(alpha=0.3)
axes.legend(frameon=False, loc="upper left")
plt.show()

# %% [markdown]
# The difference is there after the first block and never goes away. Relative to the rows, which
# become longer themselves (chapter 2), it grows slowly. The two float32 runs are about as far from
# each other as from the truth: rounding, not a bug.
#
# The third curve belongs to the arithmetic that the rest of this chapter builds. Its two ways do
# not differ at all (a curve of zeros cannot be drawn on this axis), and with these weights it is
# closer to float64 than float32 is (section 3.6 says why that need not be so). It pays with time
# and memory: its matrices are float64.

# %% [markdown]
# ## 3.5 Sums that never round
#
# A float64 has 53 binary digits: it holds every integer up to $2^{53}$. As long as all partial sums
# stay below that, adding integers in float64 never rounds at all, whatever the order.

# %%
integers = np.rint(np.random.default_rng(1).normal(size=1536) * 2.0**36)  # float64
orders = {float(np.cumsum(rng.permutation(integers))[-1]) for _ in range(1000)}
print("integers:", len(orders), "result in 1000 orders")
print("the absolute values add up to 2^53 at most:", bool(np.abs(integers).sum() <= 2.0**53))

# %% [markdown]
# **Theorem T7 (order).** If every term $t_i$ is a multiple of $g = 2^e$, where
# $-1074 \le e \le 970$, and $\sum_i |t_i| \le 2^{53} g$, then additions in binary64, in any order
# and with any brackets, give $\sum_i t_i$ exactly.
#
# *Proof.* A partial sum is a sum of some of the terms, so it is $kg$ with an integer $k$ of at
# most $2^{53}$ in size. That number is a float64, and rounding a number that is representable
# returns it. By induction over the additions every intermediate result is the exact partial sum.
#
# The proof in Rocq is `order_independent` in
# [proofs/rocq/Exactness.v](../proofs/rocq/Exactness.v). The limit is sharp; one step beyond it the
# order matters again:

# %%
a, b, c = 2.0**53, 1.0, 1.0
print("(a + b) + c - 2^53 =", int((a + b) + c - 2**53))
print("a + (b + c) - 2^53 =", int(a + (b + c) - 2**53))

# %% [markdown]
# ## 3.6 From real numbers to integers
#
# Weights and activations are not integers. But float32 numbers can be *rounded to a grid*, to
# multiples of a power of two, before they are added. There is a cheap way to do so: near
# $1.5 \cdot 2^{52} g$ the float64 numbers are exactly $g$ apart. Add that number and take it away
# again, and the addition has rounded for us.
#
# ![Numbers 0.07, 0.3, 0.55, 0.71 are moved to the nearest multiples of 0.125: 0.125, 0.25, 0.5,
# 0.75. Their sum, 1.625, is exact in any order.](pictures/grid.svg)
#
# ### Write 3.1: round by adding (one star, 5 minutes)
#
# `grid` is a power of two, or an array of them that broadcasts. Round `x`, float64, to multiples of
# it, by one addition and one subtraction.
#
# <details><summary>Hint</summary>
#
# The number to add is `1.5 * 2.0**52 * grid`. Mind the
# brackets: both steps must really be taken.
#
# </details>


# %%
def round_to(x, grid):
    return None


_ = e03.check_round_to(round_to)


# %% tags=["solution", "hide-input"] jupyter={"source_hidden": true}
@unless_solved(round_to)
def round_to(x, grid):
    shift = 1.5 * 2.0**52 * grid
    return (x + shift) - shift


# %%
print(round_to(np.array([0.3, -0.3, 1.0, 2.71828]), 2.0**-3))

# %% [markdown]
# How fine may the grids be? With weights $w = w' g_w$ and activations $x = x' g_x$, integers $w'$
# and $x'$, T7 asks that
#
# $$\sum_i |x_i' w_i'| \;\le\; \sum_i |x_i'| \cdot \max_i |w_i'| \;\le\; 2^{53} .$$
#
# So 53 bits are to be shared out: $B$ bits for each weight, and $53 - B$ for the *sum* of the
# absolute activations of a row. Each row picks its own grid, from itself alone; otherwise a row
# would depend on its company again.


# %%
def power_above(y):
    """The smallest power of two >= y, elementwise."""
    return np.exp2(np.ceil(np.log2(y)))


def grids(x, matrix, bits):
    """A grid for each row of x, with 53 - bits bits, and one for each row of the matrix."""
    w_grid = power_above(np.abs(matrix).max(axis=1, keepdims=True)) * 2.0**-bits
    size = np.array([[math.fsum(map(float, row))] for row in np.abs(x)])  # rounded once: no order
    x_grid = power_above(size * (1 + 2.0**-9)) * 2.0 ** (bits - 53)
    return x_grid, w_grid


# %% [markdown]
# ### Write 3.2: a product without an order (two stars, 10 minutes)
#
# `x` is (T, K) and the matrix (N, K), both float64, and `x_grid` and `w_grid` are what `grids`
# returns. Round both to their grids and multiply: now no sum in the product rounds any more.
#
# <details><summary>Hint</summary>
#
# It is `x @ matrix.T` with `round_to` around
# both: round each *before* it is multiplied.
#
# </details>


# %%
def on_grids(x, matrix, x_grid, w_grid):  # -> (T, N)
    return None


_ = e03.check_on_grids(on_grids)


# %% tags=["solution", "hide-input"] jupyter={"source_hidden": true}
@unless_solved(on_grids)
def on_grids(x, matrix, x_grid, w_grid):
    return round_to(x, x_grid) @ round_to(matrix, w_grid).T


# %%
def exact_product(x, matrix, bits):
    """x @ matrix.T, with `bits` bits for a weight and 53 - bits for a row of x."""
    x, matrix = x.astype(np.float64), matrix.astype(np.float64)
    return on_grids(x, matrix, *grids(x, matrix, bits))


shuffled = np.random.default_rng(2).permutation(hidden.shape[1])
product = exact_product(hidden, matrix, 21)
print(
    "columns shuffled, same bits:",
    np.array_equal(product, exact_product(hidden[:, shuffled], matrix[:, shuffled], 21)),
)
print(
    "row 7 alone, same bits:     ",
    np.array_equal(product[7:8], exact_product(hidden[7:8], matrix, 21)),
)

# %% [markdown]
# Rounding to a grid loses something, once, before the sum. How much, for each way to share the
# bits?


# %% tags=["varies"]
def relative_error(got, matrix):
    truth = hidden.astype(np.float64) @ matrix.astype(np.float64).T
    return np.sqrt(np.mean((got - truth) ** 2) / np.mean(truth**2))


factors = np.random.default_rng(3).uniform(0.5, 1.0, matrix.shape).astype(np.float32)
shares = np.arange(6, 45, 2)

# %% tags=["varies", "hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(10, 5))
for number, (label, weights) in enumerate(
    {"these weights": matrix, "weights that use all 24 bits": matrix * factors}.items()
):
    errors = [relative_error(exact_product(hidden, weights, int(s)), weights) for s in shares]
    axes.plot(
        shares,
        errors,
        color=COLOURS[number],
        marker=MARKERS[number],
        linewidth=2.5,
        markersize=8,
        label=f"integers in float64, {label}",
    )
single = relative_error(hidden @ matrix.T, matrix)
axes.axhline(single, color=COLOURS[2], linestyle="--", linewidth=2.5, label="float32")
axes.axvline(21, ymax=0.7, color="black", linewidth=1)
axes.annotate("minikv: 21", (21, 1e-8), (8, -3), textcoords="offset points")
axes.set_yscale("log")
axes.set_xlabel("bits for a weight (53 minus these for the sum of a row of activations)")
axes.set_ylabel("relative error (RMS)")
axes.set_title("53 bits, shared out", loc="left")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# On the left the weights are too coarse, on the right the activations. In between, a sum whose
# order does not matter is about as accurate as float32: each number is rounded once, to a coarser
# grid, instead of a rounding at every addition. Which is better depends on the weights. These come
# from a file with 4 bits a weight and a scale for each group of 32, and 18 bits hold all of this
# matrix exactly: hence the dip, and hence the low third curve of section 3.4. In the second curve
# each weight is multiplied by a random number between 1/2 and 1, so that it needs all bits of a
# float32. Then float32 is a few times more accurate than the integers at 21 bits. Order-free sums
# are reproducible; they are not always closer to the truth.
#
# `minikv.arithmetic.Exact` is this function with the corners worked out: rows of zeros, products
# as large as float32, a sum of absolute values that is itself computed in any order and must still
# pick the same grid, softmax and its weights.

# %% [markdown]
# ## 3.7 What else could differ
#
# Sums are not all. `np.exp` has other bits on processors with other vector instructions, since
# mathematical libraries may choose their approximations. What IEEE 754 fixes to the bit is $+\ -\
# \times\ /\ \sqrt{\ }$ and rounding to an integer. `minikv.arithmetic.elementary` builds exp, sin
# and cos from these alone, so they are the same everywhere by construction. (Fused multiply-add
# would change that; NumPy's separate calls do not fuse.)
#
# We put it to the test. A process can be told to use the code that its BLAS has for another
# processor, and NumPy to leave out its fastest instructions. Each line below is a process of its
# own that runs a small random model and hashes its logits. (On a machine without OpenBLAS the
# settings do nothing, and the float32 column stays constant.)

# %% tags=["varies"]
program = """
import minikv
from minikv.fingerprint import fingerprint
shape = minikv.tiny_config(hidden_size=96, intermediate_size=256, head_dim=24)
for name in ("float32", "exact"):
    model = minikv.random_model(shape, seed=1, arithmetic=name)
    print(fingerprint(model, range(40))[:12], end="  ")
"""
print(f"{'':42}float32       exact")
for settings in (
    {},
    {"OPENBLAS_CORETYPE": "Prescott"},
    {"OPENBLAS_CORETYPE": "Nehalem"},
    {"OPENBLAS_CORETYPE": "Haswell"},
    {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4"},
):
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | settings,
    )
    label = " ".join(f"{k}='{v}'" for k, v in settings.items()) or "as it is"
    print(f"{label:42}{run.stdout or 'this setting is not known here'}")

# %% [markdown]
# ## 3.8 Sixty-four digits
#
# The *fingerprint* of a model's answer is the SHA-256 of its logits, as little-endian float32. In
# exact arithmetic it is a constant of the weights and the text. Whatever machine you sit at, this
# cell must print the line that is printed here (for these weights, which `minikv fetch` checks).

# %%
prompt = exact_model.tokenizer.encode(PROMPT)
print(repr(PROMPT))
print(fingerprint(exact_model, prompt))

# %%
for chunks in (1, 5, [len(prompt) - 1, 1]):
    print(f"in pieces of {chunks!s:8}", fingerprint(exact_model, prompt, chunks))

# %% [markdown]
# One changed bit in one of these 589,824 logits would change nearly all of the digits. If your line
# differs, either the weights are not the same, or your machine has shown that a statement of this
# chapter is false: please report it.
#
# What you have seen is a test on some machines, and a proof about sums. It does not follow that
# every operation of every NumPy is correctly rounded; that is what `proofs/portability.py` checks
# where it is run.

# %% [markdown]
# ## What to take along
#
# * Every float addition rounds, so that a sum depends on its order, and a matrix product on the
#   shape of its company.
# * Sums of multiples of one power of two do not round, as long as they stay small enough: then
#   no order matters (T7).
# * The fingerprint of exact logits is a constant of weights and text. It is a test of a machine;
#   that sums have no order is a theorem.
#
# ## References
#
# * Higham 2002, [*Accuracy and Stability of Numerical
#   Algorithms*](https://doi.org/10.1137/1.9780898718027), chapter 4: how far sums can be off.
# * Goldberg 1991, [*What Every Computer Scientist Should Know About Floating-Point
#   Arithmetic*](https://doi.org/10.1145/103162.103163): to begin with.
# * Kahan 1965, [*Further Remarks on Reducing Truncation
#   Errors*](https://doi.org/10.1145/363707.363723): exercise 3.4.
# * [Exact arithmetic, specified](../docs/exact.md): what this chapter builds, to the last corner.
# * Words: the [glossary](../docs/glossary.md).
#
# ## Exercises
#
# Replace the body of each function, and run the cell: the check says what is wrong, as often as
# you like.
#
# ### Exercise 3.1: three small numbers (one star, 5 minutes)
#
# Return three numbers that a float32 holds, none larger than 10 in size, such that
# $(a + b) + c \ne a + (b + c)$ in float32.
#
# <details><summary>Hint</summary>Let the first two cancel, and let the third be too small to be
# seen beside them.</details>


# %%
def three_numbers():
    return 1.0, 2.0, 3.0


_ = e03.check_three_numbers(three_numbers)

# %% [markdown]
# ### Exercise 3.2: your own fingerprint (one star, 10 minutes)
#
# Return the SHA-256, in hexadecimal, of an array of numbers as little-endian float32, row by row.
#
# <details><summary>Hint</summary><code>hashlib.sha256</code> hashes bytes; the dtype
# <code>"&lt;f4"</code> is little-endian float32; <code>tobytes()</code> goes row by row.</details>


# %%
def digest(array):
    return ""


_ = e03.check_digest(digest)

# %% [markdown]
# ### Exercise 3.3: is this sum safe? (two stars, 10 minutes)
#
# Given two lists of Python integers of the same length, return whether T7 promises that the float64
# sum of the products $x_i w_i$ is exact in *every* order: true exactly when $\sum_i |x_i w_i| \le
# 2^{53}$.
#
# <details><summary>Hint</summary>Python's integers do not overflow; NumPy's do, silently. And a sum
# may be small while its partial sums are not.</details>


# %%
def is_safe(x, w):
    return True


_ = e03.check_is_safe(is_safe)

# %% [markdown]
# ### Exercise 3.4: remember what was lost (two stars, 15 minutes)
#
# Write Kahan's sum of a list of floats: besides the running sum, keep the part that the last
# addition rounded away, and give it back to the next term. Use plain additions and subtractions,
# not `math.fsum`, although the check sees results only and would accept it.
#
# <details><summary>Hint</summary>With the sum <code>s</code> and the next term <code>t</code>:
# after <code>new = s + t</code>, the difference <code>new - s</code> is what really arrived. How
# much of <code>t</code> is missing?</details>


# %%
def kahan(terms):
    total = 0.0
    for term in terms:
        total += term
    return total


_ = e03.check_kahan(kahan)

# %% [markdown]
# ### Exercise 3.5: the finest grid (three stars, 25 minutes)
#
# Given a list of floats `x` (not all zero) and a number of `bits`, return a power of two $g$ such
# that the integers $x_i' = \mathrm{rint}(x_i / g)$ have $\sum_i |x_i'| \le 2^\mathrm{bits}$. Make
# it as fine as you can; four times coarser than the finest is accepted. The order of `x` must not
# matter.
#
# <details><summary>Hint</summary>
#
# Without rounding to integers, $g \ge \sum |x_i| / 2^\mathrm{bits}$
# would do. Rounding adds at most 1/2 to each term. You may also try a grid and coarsen it while it
# does not fit.
#
# </details>


# %%
def grid(x, bits):
    return 1.0


_ = e03.check_grid(grid)

# %% [markdown]
# <details><summary>Solutions</summary>
#
# In [solutions/s03.py](solutions/s03.py).
#
# </details>

# %% [markdown]
# *Before*: [2. The residual stream](02_residual_stream.ipynb). *Next*: [4. The Markov
# property](04_markov.ipynb).
