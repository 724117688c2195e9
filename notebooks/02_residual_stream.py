# %% [markdown]
# # 2. The residual stream
#
# After this chapter you can say what each block of a language model adds to the residual stream, in
# what direction and how much. You can read the stream halfway as if it were the end, and say which
# blocks speak for an answer. And you have seen that keys and values are projections of it, bit for
# bit, which is theorem T1.
#
# *Time*: 110 minutes, 60 of them for the exercises. *Needs*: chapter 1; the
# [setup of the course](README.md), with the weights; 3 GB of memory; no GPU.

# %%
import matplotlib.pyplot as plt
import numpy as np
from exercises import e02, unless_solved

import minikv
from minikv.decoder import unembed
from minikv.experiments.plots import COLOURS, MARKERS

plt.rcParams |= {"font.size": 14, "figure.constrained_layout.use": True}

model = minikv.load("smollm2-135m-instruct", "exact")
L, D = model.config.num_hidden_layers, model.config.hidden_size
text = (
    "The Eiffel Tower stands in Paris, and the Colosseum stands in Rome. "
    "The Brandenburg Gate stands in"
)
ids = model.tokenizer.encode(text)
names = [model.tokenizer.decode([i]).strip() for i in ids]
logits, activations = model.run_with_cache(ids)
print(len(ids), "tokens; the next one is", repr(model.tokenizer.decode([int(logits[-1].argmax())])))

# %% [markdown]
# The model names Berlin, a word that is not in the text. In what follows we look for it. We use the
# exact arithmetic, so that the numbers here are the same on your machine (chapter 3 says how).
#
# ## 2.1 A sum of sixty-one parts
#
# A block reads the stream twice and adds to it twice:
#
# $$\mathrm{mid}_l = \mathrm{pre}_l + \mathrm{attn}_l(\mathrm{pre}_l), \qquad
#   \mathrm{pre}_{l+1} = \mathrm{mid}_l + \mathrm{mlp}_l(\mathrm{mid}_l) .$$
#
# Nothing is ever overwritten. A row of the last stream is therefore the row of the embedding plus
# what 30 attentions and 30 MLPs have added:
#
# $$h_L = E(x) + \sum_{l=0}^{L-1} \mathrm{attn}_l + \sum_{l=0}^{L-1} \mathrm{mlp}_l .$$

# %%
for layer in range(L):
    at = f"blocks.{layer}."
    pre, mid = activations[at + "hook_resid_pre"], activations[at + "hook_resid_mid"]
    assert np.array_equal(mid, pre + activations[at + "hook_attn_out"])
    post = mid + activations[at + "hook_mlp_out"]
    assert np.array_equal(activations[at + "hook_resid_post"], post)
print("each addition holds, bit for bit, in all", L, "blocks")

attn = np.array([activations[f"blocks.{i}.hook_attn_out"] for i in range(L)], dtype=np.float64)
mlp = np.array([activations[f"blocks.{i}.hook_mlp_out"] for i in range(L)], dtype=np.float64)
final = activations[f"blocks.{L - 1}.hook_resid_post"].astype(np.float64)
embedding = activations["hook_embed"].astype(np.float64)
rest = np.abs(final - (embedding + attn.sum(axis=0) + mlp.sum(axis=0))).max()
print("all parts add up to the end, but for roundings:", bool(rest < 1e-5 * np.abs(final).max()))

# %% [markdown]
# (Each single addition is exact to the bit because it *is* the definition. Sixty of them round
# sixty times, so the sum of all parts agrees up to rounding only.)
#
# ## 2.2 How long is a row?
#
# The stream has no normalization on its way; only what is *read* from it is normalized. So nothing
# keeps its rows from growing.
#
# **Predict before you run.** The stream is never normalized on its way. Do its rows grow, shrink
# or stay as long, from block to block?
#
# <details><summary>Answer</summary>They grow: what blocks add seldom points against the row, so
# that the sum gets longer. The plot says how fast, and which row is an exception.</details>

# %%
stream = np.array(
    [activations[f"blocks.{i}.hook_resid_pre"] for i in range(L)] + [final], dtype=np.float64
)  # (L + 1, T, D)
length = np.linalg.norm(stream, axis=2)  # (L + 1, T)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(10, 5))
axes.plot(length[:, 1:], color=COLOURS[6], linewidth=1)
axes.plot([], [], color=COLOURS[6], label="each later token")
axes.plot(
    np.median(length[:, 1:], axis=1),
    color=COLOURS[0],
    linewidth=3,
    marker="o",
    markersize=7,
    label="their median",
)
axes.plot(
    length[:, 0], color=COLOURS[1], linewidth=3, marker="s", markersize=7, label="the first token"
)
axes.set_yscale("log")
axes.set_xlabel("before block (30: after the last)")
axes.set_ylabel("length of the row, $\\|h\\|$")
axes.set_title("Rows of the stream grow", loc="left")
axes.grid(alpha=0.3)
axes.legend(frameon=False, loc="lower right")
plt.show()
median = np.median(length[:, 1:], axis=1)
growth = median[1:] / median[:-1]
print(f"the median grows {growth[0]:.1f}-fold in block 0, {growth[1]:.2f}-fold in block 1,")
print(f"and in the blocks above by {np.median(growth[2:]) - 1:.0%}, the median of these")

# %% [markdown]
# After block 0, which makes them 18 times as long, most rows grow by about a tenth a block (in
# block 1 by a half). The first token is another matter: the MLP of block 11 throws it out to a
# length of more than 20,000, and the last two bring it part of the way back. Which way does it
# point? Since it reads nobody but itself, this depends on the first token alone, and hardly on
# that.

# %%
jump = np.linalg.norm(mlp[:, 0], axis=1)
print("largest additions to the first row: MLPs of blocks", np.argsort(-jump)[:3].tolist())
row = np.abs(stream[15, 0])
share = np.sort(row**2)[::-1].cumsum() / np.sum(row**2)
print(f"two of its {D} coordinates hold {share[1]:.1%} of its squared length")
_, elsewhere = model.run_with_cache(model.tokenizer.encode("Seven boats"))
u, v = stream[15, 0], elsewhere["blocks.15.hook_resid_pre"][0].astype(np.float64)
print(f"cosine with the first row of another text: {u @ v / np.sqrt((u @ u) * (v @ v)):.3f}")

# %% [markdown]
# Attention heads that find nothing to read put their weight on this row (you saw such a column in
# section 1.8). Chapter 6 shows what happens to a cache that forgets it.

# %% [markdown]
# ## 2.3 Who adds how much?
#
# Relative to the row that it is added to, how large is a contribution?

# %%
halfway = stream[:-1] + attn  # resid_mid
relative = {
    "attention / row before it": np.linalg.norm(attn, axis=2) / length[:-1],
    "MLP / row before it": np.linalg.norm(mlp, axis=2) / np.linalg.norm(halfway, axis=2),
}

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(10, 5))
for number, (label, values) in enumerate(relative.items()):
    axes.plot(
        np.median(values[:, 1:], axis=1),
        color=COLOURS[number + 1],
        linewidth=2.5,
        marker=MARKERS[number],
        markersize=8,
        label=label,
    )
axes.axhline(1, color="black", linestyle="--", linewidth=1)
axes.set_yscale("log")
axes.set_xlabel("block")
axes.set_ylabel("relative length (median over tokens)")
axes.set_title("What a block adds", loc="left")
axes.grid(alpha=0.3)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# Block 0 adds many times the embedding itself: the stream really begins after it. In the middle an
# attention adds a tenth to a fifth of what is there (block 24 more), an MLP about a quarter. The
# last MLP adds two thirds of the length that all others together have left.
#
# ## 2.4 Which way does it point?
#
# Length says little about meaning: a reader sees the normalized row, that is, its direction. The
# cosine of two rows is 1 if they point the same way and 0 if they are perpendicular.
#
# ### Write 2.1: the cosine (one star, 5 minutes)
#
# `x` and `y` are arrays of rows, (..., D), and the result has one number for each pair of rows,
# (...): their dot product, divided by both lengths.
#
# <details><summary>Hint</summary>
#
# `np.sum(x * y, axis=-1)` is the dot product of each
# pair of rows, `np.linalg.norm(x, axis=-1)` the length of each row.
#
# </details>


# %%
def cosine(x, y):  # (..., D), (..., D) -> (...)
    return None


_ = e02.check_cosine(cosine)


# %% tags=["solution", "hide-input"] jupyter={"source_hidden": true}
@unless_solved(cosine)
def cosine(x, y):
    return np.sum(x * y, axis=-1) / (np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1))


# %%
turns = np.median(cosine(stream[:-1], stream[1:])[:, 1:], axis=1)
to_end = np.median(cosine(stream, stream[-1])[:, 1:], axis=1)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(10, 5))
axes.plot(
    np.arange(1, L + 1),
    turns,
    color=COLOURS[0],
    marker="o",
    linewidth=2.5,
    markersize=7,
    label="with the row one block earlier",
)
axes.plot(
    to_end,
    color=COLOURS[1],
    marker="s",
    linewidth=2.5,
    markersize=7,
    label="with the row at the end",
)
axes.set_xlabel("before block (30: after the last)")
axes.set_ylabel("cosine (median over tokens)")
axes.set_title("A highway with a late exit", loc="left")
axes.grid(alpha=0.3)
axes.legend(frameon=False, loc="center")
plt.show()

# %% [markdown]
# From block to block the direction hardly changes (cosines above 0.9 nearly everywhere): the
# stream is a highway on which information travels far, and each block changes lanes a little. Yet
# the small turns after block 0 add up: for two thirds of the way a row is almost perpendicular to
# what it will be in the end.

# %% [markdown]
# ## 2.5 Reading the stream halfway: the logit lens
#
# The last norm and the output matrix turn the *last* stream into logits. Nothing stops us from
# applying them to an *earlier* one, as if the remaining blocks added nothing. This is the logit
# lens (nostalgebraist 2020). It is a probe, not a fact about the model: early rows were never
# trained to be read this way.

# %%
lens = [unembed(model.weights, row.astype(np.float32)) for row in stream]  # L + 1 times (T, V)
for layer in (0, 10, 20, 26, 28, 29, 30):
    words = [repr(model.tokenizer.decode([int(i)])) for i in lens[layer][-5:].argmax(axis=1)]
    print(f"{layer:3}", *[f"{word:>10}" for word in words])

# %%
shown = [0, 5, 10, 15, 20, 22, 24, 25, 26, 27, 28, 29, 30]
last = 8
chance = np.zeros((len(shown), last))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(13, 8))
for i, layer in enumerate(shown):
    z = lens[layer][-last:].astype(np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    chance[i] = (p / p.sum(axis=1, keepdims=True)).max(axis=1)
    for j, token in enumerate(z.argmax(axis=1)):
        word = model.tokenizer.decode([int(token)])
        word = word.strip() if word.strip().isprintable() and word.strip() else repr(word)
        axes.text(
            j,
            i,
            word,
            ha="center",
            va="center",
            fontsize=13,
            color="black" if chance[i, j] > 0.55 else "white",
        )
image = axes.imshow(chance, cmap="cividis", vmin=0, vmax=1, aspect="auto")
axes.set_xticks(range(last), names[-last:])
axes.set_yticks(range(len(shown)), shown)
axes.invert_yaxis()
axes.set_xlabel("token that is read")
axes.set_ylabel("stream before block (30: the end)")
axes.set_title("The likeliest next token, read from each stream", loc="left")
figure.colorbar(image, label="its probability")
plt.show()

# %% [markdown]
# Read a column from below. Before block 0 the lens often gives the token itself back, since the
# output matrix is the embedding. Then, for two thirds of the way, it shows nothing but filler,
# then words that *could* follow, and the name of the city only at the very end. Where the lens
# shows nothing, information may still be there, in a form that the last norm and matrix do not
# show.

# %% [markdown]
# ## 2.6 Who says Berlin?
#
# The logit of a token is linear in the last stream, but for the division by its length $s$. With
# the final $s$ held fixed, each of the 61 parts has its own share in a difference of two logits,
# and the shares add up exactly (to rounding):
#
# $$z_a - z_b = \sum_{\text{parts } c} \frac{c \odot g}{s} \cdot (u_a - u_b),
#   \qquad s = \sqrt{\tfrac1D \sum_i h_{L,i}^2 + \epsilon} .$$
#
# Here $g$ is the gain of the last norm and $u_a$ the row of the output matrix of token $a$. We
# compare " Berlin" with " Paris", at the last token.

# %%
berlin, paris = (model.tokenizer.encode(word)[0] for word in (" Berlin", " Paris"))
scale = np.sqrt(np.mean(final[-1] ** 2) + model.config.rms_norm_eps)
output = model.weights.embed_tokens.astype(np.float64)  # the output matrix is the embedding
direction = model.weights.norm / scale * (output[berlin] - output[paris])  # (D,)
share_attn, share_mlp = attn[:, -1] @ direction, mlp[:, -1] @ direction
total = embedding[-1] @ direction + share_attn.sum() + share_mlp.sum()
margin = float(logits[-1, berlin]) - float(logits[-1, paris])
print(f"logit of Berlin minus logit of Paris: {margin:.3f}; the shares add up to {total:.3f}")

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(11, 5))
axes.bar(np.arange(L) - 0.2, share_attn, width=0.4, color=COLOURS[1], label="attention")
axes.bar(
    np.arange(L) + 0.2,
    share_mlp,
    width=0.4,
    color=COLOURS[2],
    label="MLP",
    hatch="//",
    edgecolor="white",
)
axes.axhline(0, color="black", linewidth=1)
axes.set_xlabel("block")
axes.set_ylabel("share (logits)")
axes.set_title("For Berlin (up), for Paris (down)", loc="left")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# A few late blocks decide, and the attention of block 23 says more for Berlin than any other part:
# six blocks before the lens shows the word. A share says what a part writes in the direction of
# the answer, directly. It does not say what would happen without that part: later blocks read what
# it wrote. For that one must replace it and run the rest, which chapter 4 does.

# %% [markdown]
# ## 2.7 Keys and values are read from the stream
#
# So far we looked at what is *added*. Attention *reads* the stream: block $l$ takes the row of each
# token, normalizes it, and multiplies by three matrices. For keys and values
#
# $$k_p = \mathrm{RoPE}_p(W_K\, \mathrm{norm}(h_{l,p})), \qquad
#   v_p = W_V\, \mathrm{norm}(h_{l,p}) .$$
#
# This says that a key is a function of one row and its position, and of nothing else. A KV cache
# keeps these numbers so that they need not be computed again.
#
# ![After each of four calls the keys and values that the cache holds: 4 tokens, 4 of them new, 5
# tokens, 1 of them new, 6 tokens, 1 of them new, 7 tokens, 1 of them new.](pictures/cache.svg)
#
# **Theorem T1 (projection).** For any positions $P$, in any order, $(K_l, V_l)[P] = \pi_l(H_l[P],
# P)$.
#
# *Proof.* Both sides are computed row by row by the formulas above. (In the code: `minikv` has one
# function that makes keys and values, `kv_from_residual`, norm and product included, and the
# prompt, decoding and recomputation all call it with the same four arguments. That a row has the
# same bits in any company is theorem T6, which rests on exact sums.)
#
# ### Write 2.2: values are a projection (two stars, 10 minutes)
#
# Write $\pi_l$ for the values, which know no positions: from rows of the stream, (T, D), in any
# order and number, the values (T, G, d) of these tokens. `layer.norm(rows, gain)` normalizes, with
# the gain `layer.input_layernorm`; `layer.linear(x, layer.v_proj)` is the product with $W_V$, (T,
# G·d); `layer.heads` cuts it into heads; `layer.arithmetic.settle` moves it to the grid of chapter
# 3, as the cache holds it.
#
# <details><summary>Hint</summary>Four calls, one inside the other, in the order of the text. The
# innermost is <code>layer.norm(rows, layer.input_layernorm)</code>.</details>


# %%
def values(rows, layer):  # (T, D) -> (T, G, d)
    return None


_ = e02.check_values(values)


# %% tags=["solution", "hide-input"] jupyter={"source_hidden": true}
@unless_solved(values)
def values(rows, layer):
    x = layer.norm(rows, layer.input_layernorm)
    return layer.arithmetic.settle(layer.heads(layer.linear(x, layer.v_proj)))


# %% [markdown]
# We decode the text token by token with a full KV cache, and compare what the cache holds with a
# projection of the rows of *one* pass over the text, in random order: the values by your function,
# the keys by the library's (exercise 2.3 asks for yours).

# %%
rng = np.random.default_rng(0)


def project(model, activations, order, shift=0):
    """In how many blocks all cached keys and values equal the projected ones, bit for bit."""
    cache = model.new_cache("full")
    for token in ids:
        model.forward([[token]], [cache], logits="none")
    arrays, equal = cache.state()[0], 0
    for layer in model.layers[: L - shift]:
        rows = activations[f"blocks.{layer.index + shift}.hook_resid_pre"][order]
        k, _ = minikv.kv_from_residual(rows, order, layer)
        same_k = np.array_equal(k, arrays[f"k.{layer.index}"][order])
        equal += same_k and np.array_equal(values(rows, layer), arrays[f"v.{layer.index}"][order])
    return equal


order = rng.permutation(len(ids))
print("blocks with equal K and V:                 ", project(model, activations, order), "of", L)
print(
    "five of the rows:                          ", project(model, activations, order[:5]), "of", L
)
print(
    "control, rows of the block above:          ",
    project(model, activations, order, 1),
    "of",
    L - 1,
)

# %% [markdown]
# The control shows that the comparison can fail: the stream of the next block does not do. And what
# about ordinary float32?
#
# **Predict before you run.** The same comparison in float32: in how many of the 30 blocks do the
# projected and the cached keys and values have equal bits?
#
# <details><summary>Answer</summary>In none, on most machines. The cache was filled by products of
# one row, the projection takes many rows at once, and the last bits differ.</details>

# %% tags=["varies"]
plain = minikv.load("smollm2-135m-instruct", "float32")
_, seen = plain.run_with_cache(ids)
print("float32, blocks with equal K and V:", project(plain, seen, order), "of", L)

# %% [markdown]
# There the cache was filled by products of one row, and the projection takes many at once; the last
# bits differ (chapter 3). The theorem is about the function, and float32 does not compute the same
# function in both calls.
#
# ## 2.8 What it would save
#
# If the stream determines keys and values, one can keep the stream instead. Per token, in bytes of
# float32:

# %%
c = model.config
kv = 2 * L * c.num_key_value_heads * c.head_dim * 4
print(f"keys and values of all {L} blocks: {kv:6,}")
print(f"a row of the stream, each block:  {L * D * 4:6,}")
print(f"a row of one block:               {D * 4:6,}")

# %% [markdown]
# Here is the catch. With grouped-query attention a row (576 numbers) is *longer* than its key and
# value together (384), so keeping the stream of every block costs more than the cache. Only a row
# of *one* block is small; but from it everything above must be computed again. Chapter 5 weighs
# that.
#
# In the other direction there is no theorem: 384 numbers do not determine 576. Exercise 2.5 lets
# you find two different rows with the same keys and values.

# %% [markdown]
# ## What to take along
#
# * The last stream is a sum: the embedding, and what each attention and each MLP has added.
# * A key and a value are a function of one row of the stream and its position, and of nothing
#   else (T1): a cache keeps what could be made again.
# * In exact arithmetic that holds bit for bit, in float32 up to rounding. With grouped-query
#   attention a row of every block is larger than its keys and values.
#
# ## References
#
# * Elhage et al. 2021, [*A Mathematical Framework for Transformer
#   Circuits*](https://transformer-circuits.pub/2021/framework/index.html): the stream as what is
#   read and added to.
# * nostalgebraist 2020, [*interpreting GPT: the logit
#   lens*](https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens):
#   section 2.5.
# * Xiao et al. 2023, *Efficient Streaming Language Models with Attention Sinks*, [arXiv
#   2309.17453](https://arxiv.org/abs/2309.17453): the first row.
# * Words: the [glossary](../docs/glossary.md).
#
# ## Exercises
#
# Replace the body of each function, and run the cell: the check says what is wrong, as often as
# you like.
#
# ### Exercise 2.1: all the parts (one star, 5 minutes)
#
# Given the activations of a model with `layers` blocks, return the list of arrays (T, D) that were
# added up, in order: the embedding, attention of block 0, MLP of block 0, and so on.
#
# <details><summary>Hint</summary>The names end in <code>hook_attn_out</code> and
# <code>hook_mlp_out</code>; the first part has no block.</details>


# %%
def parts(activations, layers):
    return [activations["hook_embed"]]


_ = e02.check_parts(parts)

# %% [markdown]
# ### Exercise 2.2: a lens of your own (two stars, 10 minutes)
#
# Return the logits (T, V) that the logit lens reads from the stream *before* block `layer`. The
# gain of the last norm is `model.weights.norm` (D,), the output matrix `model.weights.lm_head` (V,
# D), and $\epsilon$ is `model.config.rms_norm_eps`; the model computes in float64. Write the norm
# yourself.
#
# <details><summary>Hint</summary>Section 1.3 has the formula of the norm. The mean is taken over
# the last axis, row by row.</details>


# %%
def read_at(model, activations, layer):
    return np.zeros((1, model.config.vocab_size))


_ = e02.check_read_at(read_at)

# %% [markdown]
# ### Exercise 2.3: keys from the stream (two stars, 15 minutes)
#
# Given rows of the stream (T, D) in any order, their positions (T,) and a `layer`, return the keys
# `(T, G, d)` after RoPE. The layer has $W_K$ as `layer.k_proj` and the gain of its norm as
# `layer.input_layernorm`. You may use `layer.norm(x, gain)`, and `layer.turned(k, positions)`,
# which is RoPE; the model computes in float64.
#
# <details><summary>Hint</summary>Section 2.7 has the formula. A product has the shape (T, G·d):
# give each head a row of its own before you turn it.</details>


# %%
def keys(rows, positions, layer):
    c = layer.config
    return np.zeros((len(rows), c.num_key_value_heads, c.head_dim))


_ = e02.check_keys(keys)

# %% [markdown]
# ### Exercise 2.4: shares of a logit (two stars, 10 minutes)
#
# Given the parts (N, D) whose sum is the last row of the stream, the gain $g$ (D,), the row $u$
# (D,) of a token in the output matrix, and $\epsilon$, return the N shares of its logit.
#
# <details><summary>Hint</summary>All parts are divided by one number: the length of their
# <em>sum</em>.</details>


# %%
def shares(parts, gain, u, eps):
    return np.zeros(len(parts))


_ = e02.check_shares(shares)

# %% [markdown]
# ### Exercise 2.5: two rows, one key (three stars, 20 minutes)
#
# Given a row `x` (D,) of the stream, the gain `g` (D,) of the norm and the matrix `W` (2·G·d, D)
# of $W_K$ above $W_V$ with fewer rows than columns, return another row, no multiple of `x`, that
# has the same keys and values: $W\,\mathrm{norm}(x') = W\,\mathrm{norm}(x)$.
#
# <details><summary>Hint</summary>
#
# Some directions are sent to 0 by $W \mathrm{diag}(g)$; the last
# rows of `vt` in `np.linalg.svd` span them. Adding such a direction also
# changes the length of the row, by which the norm divides. Which change of a row leaves its length
# as it is?
#
# </details>


# %%
def twin(x, g, W):
    return x.copy()


_ = e02.check_twin(twin)

# %% [markdown]
# <details><summary>Solutions</summary>
#
# In [solutions/s02.py](solutions/s02.py).
#
# </details>

# %% [markdown]
# *Before*: [1. A decoder from its first matrix product](01_decoder.ipynb). *Next*: [3. Floating
# point: the same row, other bits](03_floating_point.ipynb).
