# %% [markdown]
# # 1. A decoder from its first matrix product
#
# In this chapter you write the forward pass of a Llama-shaped language model in NumPy: six
# functions, each with a check right below it. Afterwards you can say the shape of every array in
# it, run it on real weights, let it write text, and name each number inside it. You have also seen
# your own code give the same bits as the library `minikv`, not merely close numbers.
#
# A function that returns `None` waits for you. The cell after its check is folded: it keeps your
# function if the check accepts it, and puts another in its place if not, so that you can also just
# read on.
#
# *Time*: 150 minutes, 60 of them for the six functions and 50 for the exercises. *Needs*: NumPy;
# the [setup of the course](README.md), with the weights (540 MB on disk); 2 GB of memory; no GPU.

# %% [markdown]
# ## 1.1 What the model is
#
# ![The residual stream runs down the left. Attention reads it, makes queries, keys and values,
# turns queries and keys, weighs values by the pattern, and adds hook_attn_out; the MLP reads the
# sum and adds hook_mlp_out. Each array has its name and its shape.](pictures/block.svg)
#
# This is where we are going: one of the model's blocks, with the names that section 1.10 prints. A
# picture to come back to; nothing of it need be clear yet.
#
# A language model reads a text as a list of token ids and gives, for every position, one number for
# each token of its vocabulary: the *logits* of the next token. Ours is SmolLM2-135M-Instruct. Its
# shape is in a small file, its numbers in a big one.

# %%
import matplotlib.pyplot as plt
import numpy as np
from exercises import e01, unless_solved

from minikv.arithmetic import Exact
from minikv.experiments.plots import COLOURS, MARKERS

plt.rcParams |= {"font.size": 14, "figure.constrained_layout.use": True}

config, tensors, tokenizer = e01.material("smollm2-135m-instruct")

V, D, F, L = (
    config.vocab_size,
    config.hidden_size,
    config.intermediate_size,
    config.num_hidden_layers,
)
H, G, d = config.num_attention_heads, config.num_key_value_heads, config.head_dim
print(f"vocabulary V = {V}, stream width D = {D}, MLP width F = {F}, blocks L = {L}")
print(f"query heads H = {H}, key/value heads G = {G}, head width d = {d}")
print(f"{sum(t.size for t in tensors.values()):,} numbers in {len(tensors)} tensors; block 0 has")
for name, tensor in tensors.items():
    if "layers.0." in name:
        print(f"    {name:50} {tensor.shape}")

# %% [markdown]
# A matrix is stored as (outputs, inputs), so that a row of numbers $x$ is mapped to $x W^\top$. We
# keep these letters for shapes all the way, and write $T$ for the number of tokens.

# %%
text = "The capital of France is"
ids = tokenizer.encode(text)
T = len(ids)
print(ids)
print([tokenizer.decode([i]) for i in ids])

# %% [markdown]
# ## 1.2 Sums, and everything else
#
# All that a decoder computes is of two kinds. Either a number depends on the numbers at the same
# place (add, multiply, exponential), or it is a *sum* over many: a matrix product, a mean, a
# softmax denominator. Only sums depend on the order in which a computer adds. We therefore put
# them into one class, so that we can later change how sums are taken without touching the rest.
# The first version is what one would write in NumPy.


# %%
class Plain:
    """Sums as NumPy takes them, in single precision."""

    def weight(self, matrix, name):
        return matrix

    def linear(self, x, matrix):  # (T, K), (N, K) -> (T, N)
        return x @ matrix.T

    def mean_square(self, x):  # (T, K) -> (T, 1)
        return np.mean(x * x, axis=-1, keepdims=True)

    def scores(self, q, k, scale):  # one head: (T, 1, d), (S, 1, d) -> (1, T, S)
        return (q[:, 0] @ k[:, 0].T * np.float32(scale))[None]

    def softmax(self, scores):
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)

    def weighted_sum(self, weights, v):  # (1, T, S), (S, 1, d) -> (T, 1, d)
        return (weights[0] @ v[:, 0])[:, None]

    def settle(self, x):
        return x

    exp, cos, sin = staticmethod(np.exp), staticmethod(np.cos), staticmethod(np.sin)


# %% [markdown]
# `settle` does nothing here; it becomes useful in section 1.9. Numbers that are *kept* are float32.
# In between we compute elementwise in float64 and round once at the end of each step, with these:


# %%
def widen(x):
    return x.astype(np.float64)


def narrow(x):
    return x.astype(np.float32)


# %% [markdown]
# ## 1.3 Embedding and RMSNorm
#
# The embedding has a row for each token. The rows of our tokens, one below the other, are the
# beginning of the **residual stream**: a matrix of $T$ rows and $D$ columns to which every block
# adds something. Whoever reads the stream first brings each row to a standard size:
#
# $$\mathrm{norm}(x) = \frac{x}{\sqrt{\frac1D \sum_i x_i^2 + \epsilon}} \odot g .$$
#
# ### Write 1.1: RMSNorm (one star, 5 minutes)
#
# `x` is (T, D), the gain (D,), and `sums.mean_square(x)` gives the mean of the squares of each row,
# (T, 1). Divide by the root, multiply by the gain, in float64; round once, with `narrow`.
#
# <details><summary>Hint</summary><code>np.sqrt(sums.mean_square(x) + eps)</code> is the root.
# <code>widen(x)</code> divided by it is in float64.</details>


# %%
def rms_norm(x, gain, eps, sums):  # (T, D), (D,) -> (T, D)
    return None


_ = e01.check_rms_norm(rms_norm)


# %% tags=["solution", "hide-input"] jupyter={"source_hidden": true}
@unless_solved(rms_norm)
def rms_norm(x, gain, eps, sums):
    root = np.sqrt(sums.mean_square(x) + eps)
    return narrow(widen(x) / root * gain)


# %%
plain, eps = Plain(), config.rms_norm_eps
stream = tensors["model.embed_tokens.weight"][ids]  # (T, D)
x = rms_norm(stream, widen(tensors["model.layers.0.input_layernorm.weight"]), eps, plain)
print("stream", stream.shape, "normalized", x.shape)

# %% [markdown]
# ## 1.4 Queries, keys, values
#
# Each row is projected to $H$ queries, $G$ keys and $G$ values of $d$ numbers. A row asks with its
# queries; its keys say what it can be found by, its values what it hands over. With $G < H$ several
# query heads share one key and value (*grouped-query attention*): here three share one.
#
# ![6 query heads above, 2 key and value heads below; query heads 0, 1, 2 read head 0; 3, 4, 5 read
# head 1.](pictures/sharing.svg)

# %%
q = plain.linear(x, tensors["model.layers.0.self_attn.q_proj.weight"]).reshape(T, H, d)
k = plain.linear(x, tensors["model.layers.0.self_attn.k_proj.weight"]).reshape(T, G, d)
v = plain.linear(x, tensors["model.layers.0.self_attn.v_proj.weight"]).reshape(T, G, d)
print("q", q.shape, "k", k.shape, "v", v.shape)

# %% [markdown]
# ## 1.5 Positions as rotations
#
# Nothing so far knows where a token stands. Rotary embedding (RoPE) turns pairs of numbers of each
# query and key by an angle that is proportional to the position $p$. Pair $i$ consists of the
# numbers $i$ and $i + d/2$ of a head, and its angle is $p\,\theta^{-2i/d}$:
#
# $$x_i' = x_i \cos\varphi - x_{i+d/2} \sin\varphi, \qquad
#   x_{i+d/2}' = x_{i+d/2} \cos\varphi + x_i \sin\varphi .$$
#
# ![A head of 8 numbers. Number i and number i + 4 form a pair, which is turned by the position
# times the pair's frequency.](pictures/rotate_half.svg)
#
# Two vectors that are turned by angles $a$ and $b$ have a dot product that depends on $a - b$ only.
# So a score depends on how far apart two tokens are, not on where both stand. The angles first:


# %%
def angles(positions, config, sums):  # positions (T,) -> cosines and sines, each (T, 1, d/2)
    d = config.head_dim
    frequency = np.float32(config.rope_theta ** (-np.arange(0, d, 2) / d))
    angle = widen(np.asarray(positions, dtype=np.float32)[:, None, None] * frequency)
    return sums.cos(angle), sums.sin(angle)


# %% [markdown]
# ### Write 1.2: rotary positions (one star, 10 minutes)
#
# Turn the pairs of every head. `x` is (T, heads, d); `cos` and `sin` are (T, 1, d/2) and broadcast
# over the heads.
#
# <details><summary>Hint</summary>
#
# With the halves `a, b = np.split(widen(x), 2, axis=-1)`
# the new first half is `a * cos - b * sin`. `np.concatenate` joins them.
#
#
# </details>


# %%
def rope(x, cos, sin):  # (T, heads, d) -> (T, heads, d)
    return None


_ = e01.check_rope(rope)


# %% tags=["solution", "hide-input"] jupyter={"source_hidden": true}
@unless_solved(rope)
def rope(x, cos, sin):
    a, b = np.split(widen(x), 2, axis=-1)
    return narrow(np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1))


# %% [markdown]
# **Predict before you run.** A query and a key are both moved on by 1,000 positions. What happens
# to their score?
#
# <details><summary>Answer</summary>Nothing, but for rounding: both are turned by the same further
# angle, and the score depends on the difference of the angles.</details>

# %% tags=["varies"]
distance = np.arange(64)

# %% tags=["varies", "hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(10, 4.5))
for number, start in enumerate((0, 100, 1000)):
    turned_q = rope(q[[4], [0]][None], *angles([start + 63], config, plain))  # " is", head 0
    keys = np.repeat(k[[1], [0]][None], 64, axis=0)  # " capital" at 64 positions
    turned_k = rope(keys, *angles(start + 63 - distance, config, plain))
    score = plain.scores(turned_q, turned_k, 1 / np.sqrt(d))[0, 0]
    axes.plot(
        distance,
        score,
        label=f"query at {start + 63}",
        color=COLOURS[number],
        marker=MARKERS[number],
        markevery=(4 * number, 12),
        markersize=10,
        linewidth=5 - 2 * number,
    )
axes.set_xlabel("distance from key to query (tokens)")
axes.set_ylabel("score $q \\cdot k / \\sqrt{d}$")
axes.set_title("One query and one key: their distance decides", loc="left")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# The three curves lie on each other: the query stands at position 63, 163 and 1063, and the score
# is the same at the same distance (up to rounding).

# %% [markdown]
# ## 1.6 Attention
#
# Row $p$ mixes the values of the rows $s \le p$, weighted by a softmax of its scores:
#
# $$o_p = \sum_{s \le p} a_{p,s}\, v_s, \qquad
#   a_{p,s} = \frac{\exp(q_p \cdot k_s / \sqrt d)}{\sum_{r \le p} \exp(q_p \cdot k_r / \sqrt d)} .$$
#
# Later rows get the score $-\infty$, hence the weight 0: this is the *causal mask*. We write one
# head at a time; libraries do all at once, and section 1.9 shows that this changes nothing.
#
# ![Two squares of 7 queries by 7 keys. Left: each query sees all keys up to its own; right: only
# the newest 3.](pictures/mask.svg)
#
# ### Write 1.3: grouped attention (three stars, 20 minutes)
#
# `q` is (T, H, d), `k` and `v` are (T, G, d), and query head $h$ reads key and value head
# $\lfloor h / (H / G) \rfloor$. For one head, given as (T, 1, d), `sums.scores(q, k, scale)` gives
# the scores (1, T, T), `sums.softmax(scores)` the weights and `sums.weighted_sum(weights, v)` the
# output (T, 1, d). Take the shapes from the arrays.
#
# <details><summary>Hint</summary>One head of an array is <code>q[:, [head]]</code>, still with
# three axes. With <code>tokens = np.arange(len(q))</code> the mask is <code>tokens[None, :] >
# tokens[:, None]</code>, and <code>np.where</code> puts <code>-np.inf</code> where it is true.
# Join the heads along axis 1.</details>


# %%
def attention(q, k, v, sums):  # (T, H, d), (T, G, d), (T, G, d) -> (T, H, d)
    return None


_ = e01.check_attention(attention)


# %% tags=["solution", "hide-input"] jupyter={"source_hidden": true}
@unless_solved(attention)
def attention(q, k, v, sums):
    tokens, share = np.arange(len(q)), q.shape[1] // k.shape[1]
    future = tokens[None, :] > tokens[:, None]
    outputs = []
    for head in range(q.shape[1]):
        read = head // share  # the key and value head that this query head reads
        scores = sums.scores(q[:, [head]], k[:, [read]], 1 / np.sqrt(q.shape[2]))
        weights = sums.softmax(np.where(future, -np.inf, scores))
        outputs.append(sums.weighted_sum(weights, v[:, [read]]))
    return narrow(np.concatenate(outputs, axis=1))


# %% [markdown]
# ## 1.7 The MLP, the block, the model
#
# First the weights: matrices as `sums` wants them, the gains of norms in float64. What belongs to
# one block we call by its last name.


# %%
def prepare(tensors, sums):
    """All weights, under their names without the common beginning and end."""
    w = {"embedding": tensors["model.embed_tokens.weight"]}
    for name, tensor in tensors.items():
        short = name.removeprefix("model.").removesuffix(".weight")
        w[short] = sums.weight(tensor, name) if tensor.ndim == 2 else tensor.astype(np.float64)
    return w


def block_weights(w, index):
    """The weights of one block: w["layers.0.self_attn.q_proj"] is q_proj of block 0."""
    prefix = f"layers.{index}."
    return {name.split(".")[-1]: value for name, value in w.items() if name.startswith(prefix)}


# %% [markdown]
# Attention reads the stream three times, as queries, keys and values. What it found goes through
# one more matrix, and is added to the stream. (In ours the keys and values have a function of their
# own, which chapter 2 is about.)


# %%
def queries(resid_pre, positions, layer, config, sums):  # (T, D) -> (T, H, d)
    x = rms_norm(resid_pre, layer["input_layernorm"], config.rms_norm_eps, sums)  # (T, D)
    q = sums.linear(x, layer["q_proj"]).reshape(len(x), -1, config.head_dim)
    return rope(q, *angles(positions, config, sums))


def kv_from_residual(resid_pre, positions, layer, config, sums):  # (T, D) -> (T, G, d), (T, G, d)
    x = rms_norm(resid_pre, layer["input_layernorm"], config.rms_norm_eps, sums)  # (T, D)
    k = sums.linear(x, layer["k_proj"]).reshape(len(x), -1, config.head_dim)
    v = sums.linear(x, layer["v_proj"]).reshape(len(x), -1, config.head_dim)
    return sums.settle(rope(k, *angles(positions, config, sums))), sums.settle(v)


def attend(resid_pre, layer, config, sums):
    """What attention adds to the stream, (T, D) -> (T, D)."""
    positions = range(len(resid_pre))
    q = queries(resid_pre, positions, layer, config, sums)  # (T, H, d)
    k, v = kv_from_residual(resid_pre, positions, layer, config, sums)  # (T, G, d)
    z = attention(q, k, v, sums)  # (T, H, d)
    return sums.linear(z.reshape(len(z), -1), layer["o_proj"])


# %% [markdown]
# The second half of a block reads each row by itself:
# $W_\mathrm{down}\,(\mathrm{silu}(W_\mathrm{gate} x) \odot W_\mathrm{up} x)$ with
# $\mathrm{silu}(t) = t / (1 + e^{-t})$.
#
# ### Write 1.4: the gate (one star, 5 minutes)
#
# `gate` and `up` are the two products, (T, F). Return $\mathrm{silu}(\mathrm{gate}) \odot
# \mathrm{up}$. The exponential is `sums.exp`, so that it can be changed with the sums.
#
# <details><summary>Hint</summary>The denominator is <code>sums.exp(-widen(gate)) + 1.0</code>.
# Multiply by <code>up</code> last, and <code>narrow</code> the result.</details>


# %%
def gated(gate, up, sums):  # (T, F), (T, F) -> (T, F)
    return None


_ = e01.check_gated(gated)


# %% tags=["solution", "hide-input"] jupyter={"source_hidden": true}
@unless_solved(gated)
def gated(gate, up, sums):
    return narrow(widen(gate) / (sums.exp(-widen(gate)) + 1.0) * up)


# %%
def mlp(resid_mid, layer, config, sums):
    """What the MLP adds to the stream, (T, D) -> (T, D)."""
    x = rms_norm(resid_mid, layer["post_attention_layernorm"], config.rms_norm_eps, sums)  # (T, D)
    gate = sums.linear(x, layer["gate_proj"])  # (T, F)
    up = sums.linear(x, layer["up_proj"])  # (T, F)
    return sums.linear(gated(gate, up, sums), layer["down_proj"])


# %% [markdown]
# ### Write 1.5: the block (one star, 5 minutes)
#
# Both halves *add* to the stream: attention reads it and adds to it, then the MLP does. `attend`
# and `mlp` are given as functions of a stream, and say what each adds to it.
#
# <details><summary>Hint</summary>Give the stream between the two halves a name, as the library
# does: <code>resid_mid = resid_pre + attend(resid_pre)</code>. Do not write <code>+=</code>, which
# would change the array that you were given.</details>


# %%
def block(resid_pre, attend, mlp):  # (T, D) -> (T, D)
    return None


_ = e01.check_block(block)


# %% tags=["solution", "hide-input"] jupyter={"source_hidden": true}
@unless_solved(block)
def block(resid_pre, attend, mlp):
    resid_mid = resid_pre + attend(resid_pre)
    return resid_mid + mlp(resid_mid)


# %% [markdown]
# This gives the halves of a block of the model, as `block` wants them:


# %%
def block_halves(w, index, config, sums):
    """What attention and what the MLP of a block add, each as a function of the stream."""
    layer = block_weights(w, index)
    return (
        lambda resid_pre: attend(resid_pre, layer, config, sums),
        lambda resid_mid: mlp(resid_mid, layer, config, sums),
    )


# %% [markdown]
# ### Write 1.6: the loop (two stars, 15 minutes)
#
# The whole decoder: the rows of `w["embedding"]`, then one `block` after the other, then the last
# norm with the gain `w["norm"]`, then the product with `w["embed_tokens"]`, which gives the logits
# of all positions. (That matrix is the embedding once more, as `sums` wants it; this model shares
# it.)
#
# <details><summary>Hint</summary>
#
# There are `config.num_hidden_layers` blocks, and block
# number `index` is `block(x, *block_halves(w, index, config, sums))`. The
# product is `sums.linear(x, w["embed_tokens"])`.
#
# </details>


# %%
def decoder(w, ids, config, sums):  # (T,) -> (T, V)
    return None


_ = e01.check_decoder(decoder, prepare)


# %% tags=["solution", "hide-input"] jupyter={"source_hidden": true}
@unless_solved(decoder)
def decoder(w, ids, config, sums):
    x = w["embedding"][ids]  # (T, D)
    for index in range(config.num_hidden_layers):
        x = block(x, *block_halves(w, index, config, sums))
    x = rms_norm(x, w["norm"], config.rms_norm_eps, sums)
    return sums.linear(x, w["embed_tokens"])


# %% [markdown]
# The check has just compared your decoder, on a small random model, with the library's, bit for
# bit. Now the real weights:

# %%
w = prepare(tensors, plain)
logits = decoder(w, ids, config, plain)
print("logits", logits.shape)
print(f"{text!r} -> {tokenizer.decode([int(logits[-1].argmax())])!r}")

# %% tags=["varies"]
p = plain.softmax(logits[-1].astype(np.float64))
best = np.argsort(-p)[:8]

# %% tags=["varies", "hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(10, 4.2))
axes.barh(
    [repr(tokenizer.decode([int(i)])) for i in best][::-1], 100 * p[best][::-1], color=COLOURS[0]
)
axes.set_xlabel("probability of the next token (%)")
axes.set_title(f"After {text!r}", loc="left")
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# ## 1.8 What the heads look at
#
# An attention pattern is a picture: a row for each reading token, a column for each token read. We
# give the model a text that repeats itself, and look for the head that best finds the token *after*
# the earlier copy of the present one, a so-called induction head.

# All weights come out of `softmax`, so it is there that we look.


# %% tags=["varies"]
class Watched(Plain):
    """Sums that keep the weights of every softmax."""

    def __init__(self):
        self.seen = []

    def softmax(self, scores):
        self.seen.append(super().softmax(scores))
        return self.seen[-1]


watched = Watched()
repeated = tokenizer.encode("seven green boats and two clocks; seven green boats and two clocks")
names = [tokenizer.decode([i]).strip() for i in repeated]
half = names.index("seven", 1)
decoder(w, repeated, config, watched)
patterns = np.concatenate(watched.seen).reshape(L, H, len(repeated), len(repeated))
score = [
    [np.mean([pattern[h, t, t - half + 1] for t in range(half, len(names))]) for h in range(H)]
    for pattern in patterns
]
layer, head = np.unravel_index(np.argmax(score), (L, H))

# %% tags=["varies", "hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(8.5, 7))
image = axes.imshow(patterns[layer][head], cmap="cividis", vmin=0, vmax=1)
axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
axes.set_yticks(range(len(names)), names)
axes.set_xlabel("token read (key)")
axes.set_ylabel("token that reads (query)")
axes.set_title(f"Block {layer}, head {head}: who reads whom", loc="left")
figure.colorbar(image, label="attention weight")
plt.show()

# %% [markdown]
# Above the diagonal all is 0: the causal mask. From the second *green* on most of the weight
# lies on a line that is shifted by one, the rest on the first token: the head reads what came
# *next* the first time, and the model can continue the copy. The first row of a text has nobody to
# read but itself; most heads also put their weight there when they find nothing (an *attention
# sink*; chapter 6 needs it). So does the second *seven* here: the *seven* before the first *green*
# is the sink itself.

# %% [markdown]
# ## 1.9 The same bits as the library
#
# The library's block reads like ours (`minikv/decoder.py`: `block`, `attend`, `mlp`), but what
# stands below it computes otherwise: all heads run at once, queries go in blocks of 32, angles come
# from a table. In ordinary floating point that is enough to change the last bits, since the sums
# are taken in another order.
#
# **Predict before you run.** Your decoder and the library's, both in float32, on the same weights
# and text. How many of the logits have the same bits?
#
# <details><summary>Answer</summary>Hardly any. Both are right, to about six digits; but they add
# in different orders, and each order rounds otherwise.</details>

# %% tags=["varies"]
theirs = e01.library_model("float32").logits(ids)
print(f"{np.mean(logits != theirs):.1%} of the logits differ from minikv's in float32,")
print(
    f"by at most {np.abs(logits - theirs).max():.1e}; the logits reach {np.abs(theirs).max():.1f}"
)

# %% [markdown]
# A small difference proves little: a subtle bug also makes a small difference. So we take the sums
# in a way in which order cannot matter. `minikv.arithmetic.Exact` has the methods of our class
# `Plain`; how it works is the subject of chapter 3. (`settle` rounds keys and values to the grid
# on which it adds them.) Not a line of our decoder changes.

# %%
del w
exact = Exact(context=config.max_position_embeddings)
w = prepare(tensors, exact)
ours = decoder(w, ids, config, exact)

# %% [markdown]
# Before we compare, let it write. Greedy decoding takes the likeliest token, appends it, and runs
# the whole text again. That is wasteful (chapter 5), and it is the definition of what a faster
# program must reproduce.


# %%
def write(w, prompt, new):
    ids = tokenizer.encode(prompt)
    for _ in range(new):
        ids.append(int(decoder(w, ids, config, exact)[-1].argmax()))
    return tokenizer.decode(ids)


written = write(w, "Once upon a time, there was a", 8)
print(written)

# %%
del w  # a gigabyte that the library's copy can use
model = e01.library_model("exact")
theirs = model.logits(ids)
same = ours.view(np.uint32) == theirs.view(np.uint32)
print(f"{same.sum():,} of {same.size:,} logits have the same 32 bits")
start = tokenizer.encode("Once upon a time, there was a")
continued = list(model.generate(start, max_new_tokens=8))
print("the same text with the library's KV cache:", tokenizer.decode(start + continued) == written)

# %% [markdown]
# All of them. The comparison is of bits, so it has no tolerance that could hide a bug: had we
# swapped the halves in `rope`, or let head 1 read key head 1, it would fail. What it does not
# show: that both programs are *right*. They could share a mistake. `tests/peers` compares `minikv`
# with transformers, layer by layer.

# %% [markdown]
# ## 1.10 Names
#
# To talk about the inside of a model one needs names. `minikv` uses those of TransformerLens; each
# array passes once through a hook under its name, and `run_with_cache` returns them all.

# %%
_, activations = model.run_with_cache(ids)
print(len(activations), "arrays; those of block 0:")
for name, value in activations.items():
    if name.startswith("blocks.0."):
        print(f"    {name:36} {value.shape}")


# %% [markdown]
# Look at the picture of section 1.1 once more, from above. The block leaves the stream twice, for
# attention and for the MLP, and comes back twice with a plus. Between the blocks there is nothing
# but the stream: block $l+1$ starts from `hook_resid_post` of block $l$. Chapter 2 looks at it.

# %% [markdown]
# ## What to take along
#
# * A decoder is a stream of rows, to which every block adds twice: what attention reads from
#   other rows, and what the MLP makes of each row by itself.
# * Queries, keys and values are products with the normalized row; keys and queries are turned by
#   their position, and a query sees keys up to its own.
# * Only sums depend on an order. With sums that do not, two programs that share no line give the
#   same bits, and a comparison needs no tolerance.
#
# ## References
#
# * Vaswani et al. 2017, *Attention Is All You Need*, [arXiv
#   1706.03762](https://arxiv.org/abs/1706.03762): attention.
# * Zhang and Sennrich 2019, *Root Mean Square Layer Normalization*, [arXiv
#   1910.07467](https://arxiv.org/abs/1910.07467): RMSNorm.
# * Su et al. 2021, *RoFormer*, [arXiv 2104.09864](https://arxiv.org/abs/2104.09864): rotary
#   positions.
# * Ainslie et al. 2023, *GQA*, [arXiv 2305.13245](https://arxiv.org/abs/2305.13245): query heads
#   that share keys and values.
# * Shazeer 2020, *GLU Variants Improve Transformer*, [arXiv
#   2002.05202](https://arxiv.org/abs/2002.05202): the gated MLP.
# * Olsson et al. 2022, *In-context Learning and Induction Heads*, [arXiv
#   2209.11895](https://arxiv.org/abs/2209.11895): the heads of section 1.8.
# * [TransformerLens](https://transformerlensorg.github.io/TransformerLens/): whose names for
#   activations these are.
# * Words: the [glossary](../docs/glossary.md).
#
# ## Exercises
#
# Replace the body of each function, and run the cell: the check says what is wrong, as often as
# you like.
#
# ### Exercise 1.1: how many numbers? (one star, 5 minutes)
#
# Return how many numbers a model of this configuration has, from the configuration alone. Use
# `vocab_size`, `hidden_size`, `intermediate_size`, `num_hidden_layers`, `num_attention_heads`,
# `num_key_value_heads`, `head_dim` and `tie_word_embeddings`.
#
# <details><summary>Hint</summary>Go through the nine tensors of block 0 printed in section 1.1.
# Then add what is not in a block. A tied model stores its embedding once.</details>


# %%
def parameters(config):
    return 0


_ = e01.check_parameters(parameters)

# %% [markdown]
# ### Exercise 1.2: shared keys (one star, 5 minutes)
#
# Given keys of shape (S, G, d), return an array of shape (S, H, d) in which query head $h$ finds
# at index $h$ the key that it reads: with $G = 2$ and $H = 4$, heads 0 and 1 read the first, heads
# 2 and 3 the second.
#
# <details><summary>Hint</summary>NumPy has two functions that copy, and they order the copies
# differently. The heads that share a key are neighbours, as in <code>attention</code>.</details>


# %%
def share(keys, query_heads):
    return keys


_ = e01.check_share(share)

# %% [markdown]
# ### Exercise 1.3: undo a rotation (two stars, 10 minutes)
#
# A cache stores keys after RoPE. Given such keys `(S, heads, d)` and the cosines and sines of their
# angles, `(S, 1, d/2)`, return the keys as they were before.
#
# <details><summary>Hint</summary>A rotation by an angle is undone by a rotation by its negative.
# What do cosine and sine do when the angle changes its sign?</details>


# %%
def unrope(keys, cos, sin):
    return keys


_ = e01.check_unrope(unrope)

# %% [markdown]
# ### Exercise 1.4: surprise (two stars, 10 minutes)
#
# Return the mean of $-\log p(\text{next token})$ in nats over a text: `logits` is (T, V), where row
# $t$ predicts token $t + 1$; `ids` are its T tokens. The last row predicts a token that we do not
# know, and the first token is predicted by nobody.
#
# <details><summary>Hint</summary>
#
# $\log p_i = z_i - \log \sum_j e^{z_j}$. Subtract the largest logit
# of the row first, or $e^{z}$ overflows.
#
# </details>


# %%
def surprise(logits, ids):
    return 0.0


_ = e01.check_surprise(surprise)

# %% [markdown]
# ### Exercise 1.5: attention in one pass (three stars, 20 minutes)
#
# One query `q` (d,) attends to keys `k` and values `v` (S, d). Write it as a loop over the keys
# that sees each key once and keeps only three things: the largest score so far, the sum of the
# weights so far, and the weighted sum of values so far. This is how attention runs in memory that
# does not grow with the text (Milakov and Gimelshein 2018, [arXiv
# 1805.02867](https://arxiv.org/abs/1805.02867)). The check sees results only; that you went over
# the keys once is for you to see.
#
# <details><summary>Hint</summary>
#
# Weights are $e^{s - m}$ with $m$ the largest score *so far*. When
# a key has a larger score, the old sums were taken with the old $m$: multiply both by
# $e^{m_\mathrm{old} - m_\mathrm{new}}$.
#
# </details>


# %%
def one_pass(q, k, v):
    return np.zeros(v.shape[1])


_ = e01.check_one_pass(one_pass)

# %% [markdown]
# <details><summary>Solutions</summary>
#
# In [solutions/s01.py](solutions/s01.py).
#
# </details>

# %% [markdown]
# *Before*: [0. Before the first chapter](00_before.ipynb). *Next*: [2. The residual
# stream](02_residual_stream.ipynb).
