# %% [markdown]
# # 7. Where the claim fails
#
# After this chapter you can look at a change to the decoder and say which
# theorem it breaks, build the smallest experiment that shows it, and name what has to be
# carried to repair the claim.
#
# *Time*: 160 minutes, 70 of them for the exercises. *Needs*: chapters 4 and 5, and nothing else:
# all models here are small and random, because one refutation is enough, whoever the model is.

# %%
import importlib
import inspect
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

sys.path.insert(0, str(Path("../proofs").resolve()))

from counterexamples import call_by_call, chain, one_pass, record
from exercises import e07, unless_solved

import minikv
from minikv import kl_divergence
from minikv.experiments.plots import COLOURS, MARKERS
from minikv.verify import THEOREMS, Case

plt.rcParams.update({"font.size": 13, "figure.dpi": 90, "figure.constrained_layout.use": True})

# %% [markdown]
# ## 7.1 What is refuted by what
#
# A theorem says "for all models of this form, all texts, all ways to cut them into calls". One
# case refutes it. The theorems T1 to T12 assume three things about the decoder:
#
# 1. **No bypass.** A block reads the stream $H_l$ and its own weights, nothing else; nothing is
#    kept between calls but what the stream determines.
# 2. **Causality.** Row $p$ of a block's output depends on rows $1, \dots, p$ alone.
# 3. **Determinism and row locality.** An operation gives a row the same bits in any company.
#
# Each of the ten counter-examples in `proofs/counterexamples` changes one thing, and thereby drops
# one of the three, or drops a part of what the theorem says must be kept. They are not straw men:
# most are published architectures or common practice in serving.
#
# A `Case` is a model, two texts of the same length, and the sizes of the calls in which the first
# is fed. This one we use throughout: 6 blocks, 8 tokens, in calls of 4, 1, 1 and 2.

# %%
case = Case(
    minikv.tiny_config(num_hidden_layers=6),
    ids=(3, 1, 4, 1, 5, 9, 2, 6),
    other=(2, 7, 1, 8, 2, 8, 1, 8),
    chunks=(4, 1, 1, 2),
)
for theorem in THEOREMS.values():
    theorem.check(case)  # raises if it is refuted
print(len(THEOREMS), "theorems hold for the unchanged decoder")

# %% [markdown]
# Before we change anything: on the unchanged decoder all theorems hold for this very case. What
# fails below fails because of the change.

# %%
NAMES = (
    "value_residual",
    "dense_average",
    "shared_kv",
    "no_mask",
    "own_output",
    "rewritten_kv",
    "quantised_cache",
    "tensor_quantisation",
    "injected_prefix",
    "unplaced_checkpoint",
)
examples = {name: importlib.import_module(f"counterexamples.{name}") for name in NAMES}
for name, example in examples.items():
    print(f"{name:20} refutes {example.THEOREM}: {example.refuted(case)}")

# %% [markdown]
# The rest of the chapter takes them one family at a time.
#
# ## 7.2 Bypasses: something travels past the stream
#
# In a **value residual** network (Zhou et al. 2024, [arXiv
# 2410.17897](https://arxiv.org/abs/2410.17897)) every block mixes the values of block 0 into its
# own:
#
# $$ v_{l,p} = \tfrac12\,\bigl(W_V^{(l)} \mathrm{norm}(h_{l,p})
# + W_V^{(0)} \mathrm{norm}(h_{0,p})\bigr). $$
#
# As a change to minikv it is a hook that remembers. What it remembers is an argument, so that we
# can get at it.
#
# ### Write 7.1: the counter-example (two stars, 10 minutes)
#
# Return a hook for one pass. It sees every activation by its name and returns it, or what takes
# its place. The values of block 0 come by as `blocks.0.attn.hook_v`: keep them as `memory["v"]`.
# From every name that ends in `attn.hook_v`, block 0's included, return the mean of the value and
# of what is kept.
#
# <details><summary>Hint</summary><code>memory["v"] = value</code> comes first. All other names get
# <code>value</code> back as it is. <code>"blocks.3.attn.hook_v".endswith("attn.hook_v")</code> is
# true.</details>


# %%
def value_residual(memory):
    def hook(name, value):
        return value  # change this

    return hook


_ = e07.check_value_residual(value_residual)


# %% tags=["solution", "hide-input"] jupyter={"source_hidden": true}
@unless_solved(value_residual)
def value_residual(memory):
    """A hook for one pass; `memory` holds the values of block 0."""

    def hook(name, value):
        if name == "blocks.0.attn.hook_v":
            memory["v"] = value
        return (value + memory["v"]) / 2 if name.endswith("attn.hook_v") else value

    return hook


# %% [markdown]
# Now $H_l$ is not the whole state: $v_l$ also needs $H_0$. We repeat the transplant of chapter 4:
# the recipient runs up to layer $l$, there its stream is replaced by the donor's, and we compare
# the next-token distributions at the end. In a second run we carry more: at layer $l$ we replace
# the remembered values too, by those that the donor's $H_0$ projects to (T1).
#
# One must be careful here. It would be easier to patch the donor's $H_0$ in at the bottom. But
# then the recipient would have become the donor before it began; every deterministic decoder
# passes such a test, so it would show nothing. What is carried has to arrive at layer $l$ and not
# before.
#
# ### Write 7.2: the cure (one star, 5 minutes)
#
# From the donor's $H_0$, (T, D), make what the hook has to remember: the values of block 0, (T, G,
# d). (By T1 they are a projection, which is why carrying $H_0$ is enough.)
#
# <details><summary>Hint</summary><code>minikv.kv_from_residual(h0, positions, layer)</code> returns
# keys and values; the positions are <code>np.arange(len(h0))</code>.</details>


# %%
def carried(model, h0):  # (T, D) -> (T, G, d)
    return None


_ = e07.check_carried(carried)


# %% tags=["solution", "hide-input"] jupyter={"source_hidden": true}
@unless_solved(carried)
def carried(model, h0):
    return minikv.kv_from_residual(h0, np.arange(len(h0)), model.layers[0])[1]


# %%
def transplant(architecture, patch_stream, patch_memory):
    """D_KL (nats) at the last position for each layer l >= 1 at which the donor's is patched in."""
    donor = {}
    expected = one_pass(case, case.ids, architecture({}), record(donor))[-1]
    projected = carried(case.model, donor["blocks.0.hook_resid_pre"])
    divergences = []
    for layer in range(1, len(case.model.layers)):
        memory = {}

        def swap(name, value, at=f"blocks.{layer}.hook_resid_pre", memory=memory):
            if name != at:
                return value
            if patch_memory:
                memory["v"] = projected
            return donor[name] if patch_stream else value

        got = one_pass(case, case.other, swap, architecture(memory))[-1]
        divergences.append(float(kl_divergence(expected, got)))
    return divergences


def unchanged(memory):
    return chain()


results = {
    "unchanged decoder, $H_l$ patched": transplant(unchanged, True, False),
    "value residual, $H_l$ patched": transplant(value_residual, True, False),
    "value residual, $H_0$'s values patched": transplant(value_residual, False, True),
    "value residual, both patched": transplant(value_residual, True, True),
}
for label, kl in results.items():
    print(f"{sum(value == 0 for value in kl)} zeros of {len(kl)}: {label}")

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(8, 5.2))
at = range(1, 1 + len(kl))
for number, (label, kl) in enumerate(results.items()):
    axes.plot(
        at,
        kl,
        label=label,
        color=COLOURS[number],
        marker=MARKERS[number],
        markersize=14 - 3 * number,
        linewidth=5 - number,
    )
axes.set_xticks(at)
axes.set_xlabel("layer at which the donor's stream is patched in")
axes.set_ylabel("$D_{KL}$(donor, patched) (nats)")
axes.set_yscale("symlog", linthresh=1e-4)  # shows 0 and, above 0.0001, powers of ten
axes.set_ylim(-2e-5, 40)
axes.grid(alpha=0.3)
figure.legend(frameon=False, loc="outside upper left")
plt.show()

# %% [markdown]
# The recipient ran below layer $l$ and left its block-0 values in the hook's memory; they reach
# the logits, and the divergence is not 0. This is also the missing half of chapter 4: *there* the
# same experiment could have shown a leak, and did not.
#
# The cure is to call more things state. The pair $(H_l, H_0)$ is Markov again: the last line is 0
# at every layer, and neither half alone is. A checkpoint then costs two vectors a token, or one
# vector and the token's id, from which $H_0$ follows. The Rocq file proves both halves, the
# refutation for a small integer model and the cure for every model of this form:

# %%
source = Path("../proofs/rocq/Needed.v").read_text(encoding="utf-8")
for lemma in ("vr_equal_streams", "vr_different_outputs", "vr_not_markov", "vr_is_paired"):
    print(re.search(rf"^(Theorem|Example) {lemma}\b.*?\.$", source, re.DOTALL | re.MULTILINE)[0])

# %% [markdown]
# `vr_not_markov` is stronger than a failed experiment. It does not say "our replay gives other
# logits" but "there is *no function at all* from the stream to the outputs": two texts with the
# same stream and different outputs leave no room for one. A patch that fails shows that *this
# program* reads something else; a pair of texts as in `vr_equal_streams` shows that it *must*.
#
# The difference matters in the next example. In `dense_average.py` a block reads an average of the
# outputs of all blocks below, after DenseFormer (Pagliardini et al. 2024, [arXiv
# 2402.02622](https://arxiv.org/abs/2402.02622)), with weights that differ from layer to layer. The
# patch fails. With *equal* weights it would fail too; but would there be no function? Exercise 7.3
# asks you to find out.

# %%
fails = examples["dense_average"].refuted(case)
print("the patch gives the donor's logits at every layer:", not fails)

# %% [markdown]
# **Cross-layer sharing** (Brandon et al. 2024, [arXiv
# 2405.12981](https://arxiv.org/abs/2405.12981)) lets every block attend to the keys and values of
# block 0. It saves memory: one layer's K and V instead of $L$. The keys of block $l$ are then no
# projection of $h_l$ (T1), but they are one of $h_0$:

# %%
example = examples["shared_kv"]
print("K and V of each block are projections of its own stream:", not example.refuted(case))
print("... of the stream at layer 0:                           ", example.cured(case))

# %% [markdown]
# ## 7.3 No mask: the past changes
#
# Without the causal mask a token attends to later tokens too. Then every new token changes the
# streams of all earlier ones, and with them their keys and values: what a cache holds is out of
# date at once. We add tokens to a text one by one and watch the row of the first token.
#
# **Predict before you run.** Without the mask an eighth token is added to a text of seven. At
# which layers does the row of the first token keep its bits?
#
# <details><summary>Answer</summary>At layer 0 alone, which is the embedding. From layer 1 on it
# has read the new token.</details>


# %%
from minikv.verify.theorems.t08_causality import Unmasked


def first_row(tokens, masked):
    """The first token's stream before each block, in a text of that many tokens."""
    rows = {}
    cache = None if masked else Unmasked(case.model.new_cache("full"))
    case.model.forward([case.ids[:tokens]], [cache], "none", rows.setdefault)
    names = [f"blocks.{layer.index}.hook_resid_pre" for layer in case.model.layers]
    return [rows[name][0] for name in names]


drift = {}
for masked in (True, False):
    before, after = first_row(7, masked), first_row(8, masked)
    drift[masked] = [
        float(np.linalg.norm(b - a) / np.linalg.norm(a)) for a, b in zip(before, after, strict=True)
    ]
    print(
        "mask" if masked else "no mask",
        "layers at which the first row keeps its bits:",
        [layer for layer, moved in enumerate(drift[masked]) if moved == 0],
    )

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(8, 4.2))
for masked, label in ((True, "causal mask"), (False, "no mask")):
    axes.plot(
        drift[masked],
        label=label,
        color=COLOURS[not masked],
        linewidth=2.5,
        marker=MARKERS[not masked],
        markersize=10,
    )
axes.set_xlabel("layer")
axes.set_ylabel("relative change of the first row\nwhen an eighth token is added")
axes.grid(alpha=0.3)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# With the mask the line is at 0: not one bit moves (T8). Without it the first row has moved from
# layer 1 on; layer 0 is the embedding, which no attention has touched yet. There is no cure:
# bidirectional models have no KV cache, and T2 still holds for them, since the whole stream still
# determines what follows. Causality is not needed for the Markov property; it is needed to keep
# anything.
#
# ## 7.4 State between calls
#
# Three changes make the cache a state of its own. What it holds then depends on *how the text was
# cut into calls*, and no pass over the text gives it back.
#
# * `own_output.py`: past tokens are read through the block's *output* (after Fan et al. 2020,
#   [arXiv 2002.09402](https://arxiv.org/abs/2002.09402)). K and V exist only after the call.
# * `rewritten_kv.py`: after each call the values of all tokens so far are halved.
# * `quantised_cache.py`: K and V are rounded to multiples of 1/4 when stored. A token sees its own
#   call unrounded, and later calls see it rounded.
#
# We decode the text in its four calls and compare each position's logits with those of one pass.
#
# **Predict before you run.** The text is fed in calls of 4, 1, 1 and 2 tokens, to a cache that is
# rounded when it is stored. At which positions are the logits still those of one pass?
#
# <details><summary>Answer</summary>At the first four: in their call nothing has been stored yet.
# From the second call on, tokens read what has been rounded.</details>


# %%
def largest_error(rows):
    """The largest difference of a logit from one pass over the text, for each position."""
    return np.abs(rows - case.logits).max(axis=1)


own, quantised = examples["own_output"], examples["quantised_cache"]
feedback = own.Feedback(case.model.new_cache())
errors = {
    "full cache": call_by_call(case, case.model.new_cache()),
    "reads the output": call_by_call(case, feedback, feedback.hook),
    "halved values": call_by_call(case, examples["rewritten_kv"].Fading(case.model.new_cache())),
    "rounded cache": call_by_call(case, quantised.Quantised(case.model.new_cache())),
}
errors = {label: largest_error(rows) for label, rows in errors.items()}
for label, error in errors.items():
    print(f"{label:17} positions with the bits of one pass:", np.flatnonzero(error == 0))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(9, 4.6))
for number, (label, error) in enumerate(errors.items()):
    axes.plot(
        error,
        label=label,
        color=COLOURS[number],
        marker=MARKERS[number],
        markersize=10,
        linewidth=2.5,
    )
for edge in np.cumsum(case.chunks)[:-1]:
    axes.axvline(edge - 0.5, color="grey", linestyle=":")
axes.set_xlabel("position (dotted lines: where a new call begins)")
axes.set_ylabel("largest error of a logit")
axes.grid(alpha=0.3)
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
plt.show()

# %% [markdown]
# In the first call all four agree with one pass, since nothing has been stored yet. From the
# second call on three of them differ.
#
# A rounded cache is common in serving, on grids much finer than ours, and with smaller errors. The
# point is not that it is bad but that it is no longer *redundant*: recompute K and V from the
# residuals, and you get other numbers than those in the cache. The cure costs nothing: round where
# K and V are *made*, so that every path sees the same rounded numbers. Rounding is then a part of
# the model.

# %%
print(inspect.getsource(quantised.at_the_source))
print("rounded at the source, any calls give the bits of one pass:", quantised.cured(case))

# %% [markdown]
# ## 7.5 Company: a row that depends on its neighbours
#
# 8-bit inference rounds activations to a grid. With *one* scale for the whole tensor,
#
# $$ \hat x_{ij} = s \cdot \mathrm{round}(x_{ij} / s), \qquad s = \max_{ij} |x_{ij}| / 127, $$
#
# one large value anywhere in the batch coarsens the grid of every row. Row locality (T6) is gone,
# and with it all that rests on it: prefill and decode have different batches, so they have
# different grids.

# %%
quantise = examples["tensor_quantisation"].quantised
x = np.array([[0.3, -0.7, 1.0]], dtype=np.float32)
loud = np.array([[40.0, 0.0, -90.0]], dtype=np.float32)
for title, axis in (("one scale for the tensor", None), ("a scale for each row", -1)):
    hook = quantise(axis)
    alone = hook("ln1.hook_normalized", x)[0]
    beside = hook("ln1.hook_normalized", np.concatenate([x, loud]))[0]
    print(f"{title:25} alone {alone.round(2)}, beside a loud row {beside.round(2)}")

# %% [markdown]
# The cure is visible in the second line: a scale for each row makes the row's result its own
# again. `axis=-1` is the whole cure.
#
# ## 7.6 What was never a token, and what lost its place
#
# **Prefix tuning** (Li and Liang 2021, [arXiv 2101.00190](https://arxiv.org/abs/2101.00190)) puts
# trained keys and values before the text. No token made them, so no residual projects to them, and
# a replay from the token ids (T5) does not give them back. The cure is to see that they are not
# state but *weights*: they are the same for every text, and are kept once.
#
# **A checkpoint without its position.** A residual row says what a token is, and not where it
# stands: rotary keys need both, $k = \mathrm{RoPE}_p(W_K\,\mathrm{norm}(h))$. Recompute all
# evicted keys as if they stood at position 0, and decoding goes wrong (T4).

# %%
for name in ("injected_prefix", "unplaced_checkpoint"):
    example = examples[name]
    refuted, cured = example.refuted(case), example.cured(case)
    print(f"{name:20} refutes {example.THEOREM}: {refuted}; cured: {cured}")

# %% [markdown]
# ## 7.7 Finding the smallest case
#
# We chose our case by hand. Hypothesis chooses by itself and then shrinks what it found, until
# nothing can be taken away. For the tensor-wide scale:

# %% tags=["varies"]
from exercises import smallest
from strategies import cases

found = smallest(cases(max_layers=2, scales=[1.0]), examples["tensor_quantisation"].refuted)
print(
    f"{len(found.ids)} token(s) in each text, {found.source.num_hidden_layers} block(s),",
    f"{found.source.hidden_size} wide; texts {found.ids} and {found.other}",
)

# %% [markdown]
# A shrunken case explains. Two texts of one token are enough, since what is wrong is that two rows
# share a call. The suite (`proofs/test_counterexamples.py`) finds a smallest case for each of the
# ten, checks that the unchanged decoder passes the theorem on that very case, and that the cure
# restores the claim on others.
#
# ## 7.8 What breaks, and what to carry
#
# | what is changed | what breaks | what has to be carried |
# |---|---|---|
# | value residual | T2 | $(H_l, H_0)$ |
# | averages of all layers, in general | T2 | the streams of all layers below |
# | shared keys and values | T1 | $H_0$ |
# | no mask | T8 | nothing helps |
# | outputs read back, values rewritten | T3 | the cache itself: it is a state |
# | rounded cache | T3 | nothing, if rounded at the source |
# | one scale for a batch | T6 | nothing, with a scale for each row |
# | injected prefix | T5 | the prefix, once, as a weight |
# | checkpoint without position | T4 | the position |
#
# The claim of this course is not a law about transformers. It is a property of architectures that
# keep three rules, and it can be lost with one line of code. What one does in each case is the
# same: find what else is read, and either call it state and carry it, or stop reading it.
#
# ## What to take along
#
# * The claim needs no bypass, causality, and rows that do not depend on their company; one line of
#   code can drop any of the three.
# * A patch that fails says what *this program* reads; a pair of texts with one stream and two
#   outputs says that *no function* of the stream will do.
# * The cure is to carry what else is read as state, or to stop reading it; without causality there
#   is none.
#
# ## References
#
# * Zhou et al. 2024, *Value Residual Learning*, [arXiv
#   2410.17897](https://arxiv.org/abs/2410.17897).
# * Pagliardini et al. 2024, *DenseFormer*, [arXiv 2402.02622](https://arxiv.org/abs/2402.02622).
# * Brandon et al. 2024, on cross-layer attention, [arXiv
#   2405.12981](https://arxiv.org/abs/2405.12981).
# * Fan et al. 2020, on feedback memory, [arXiv 2002.09402](https://arxiv.org/abs/2002.09402).
# * Li and Liang 2021, *Prefix-Tuning*, [arXiv 2101.00190](https://arxiv.org/abs/2101.00190).
# * [The counter-examples](../proofs/README.md), a file each in `proofs/counterexamples/`.
# * Words: the [glossary](../docs/glossary.md).
#
# ## Exercises
#
# Replace the body of each function, and run the cell: the check says what is wrong, as often as
# you like.

# %% [markdown]
# ### Exercise 7.1: which rule is broken? (one star, 10 minutes)
#
# For each change, name the rule that it breaks: `"bypass"` (something passes the stream by within
# a call), `"state"` (something is kept between calls that the stream does not determine),
# `"causality"` or `"locality"`.
#
# <details><summary>Hint</summary>
#
# Ask of each: with one text, in one call, would there be any difference from a decoder that keeps
# the rules? And with two texts?
#
# </details>

# %%
rules = {
    "value_residual": "",
    "shared_kv": "",
    "no_mask": "",
    "rewritten_kv": "",
    "quantised_cache": "",
    "tensor_quantisation": "",
}
_ = e07.check_rules(rules)

# %% [markdown]
# ### Exercise 7.2: a scale for each row (one star, 10 minutes)
#
# Write `quantise(x)` for a float64 array `(T, D)`: each row rounded to multiples of its largest
# absolute value divided by 127. A row of zeros stays zero.
#
# <details><summary>Hint</summary>
#
# `keepdims=True` makes the scale `(T, 1)`. What is the scale of a row of zeros?
#
# </details>


# %%
def quantise(x):
    scale = np.abs(x).max() / 127
    return np.rint(x / scale) * scale  # repair this


_ = e07.check_quantise(quantise)

# %% [markdown]
# ### Exercise 7.3: is the equal average Markov after all? (two stars, 20 minutes)
#
# Let $r_0$ be the embedding, $r_1, r_2, \dots$ the blocks' outputs, and $y_l = (r_0 + \dots + r_l)
# / (l + 1)$ the stream, which block $l$ reads. Write `next_average(y, r, layer)`: the stream
# $y_{l+1}$ from $y_l$ and $r_{l+1}$ alone, without the history. What does it say about T2 for
# such an architecture? And about `dense_average.py`, whose weights differ from layer to layer?
#
# The check uses fractions, so that nothing is rounded.
#
# <details><summary>Hint</summary>
#
# How do you get the sum $r_0 + \dots + r_l$ back from its mean?
#
# </details>


# %%
def next_average(y, r, layer):
    return (y + r) / 2  # repair this


_ = e07.check_next_average(next_average)

# %% [markdown]
# ### Exercise 7.4: a counter-example of your own (three stars, 30 minutes)
#
# Write `architecture(memory)`: it makes a hook `hook(name, value)` for one pass of a decoder in
# which the transplant of $H_l$ fails for some layer $l \ge 1$, and for which $(H_l, H_0)$ is a
# cure. `memory` is an empty dictionary; the only thing that the hook may remember is the stream
# before block 0, as `memory["h"]`, and the check will replace it by the donor's at layer $l$. It
# must not be the value residual: leave `hook_v` alone.
#
# <details><summary>Hint</summary>
#
# Remember `blocks.0.hook_resid_pre` when it comes by, and use it in a later block, at
# `hook_attn_out` or `hook_mlp_out`.
#
# </details>


# %%
def architecture(memory):
    def hook(name, value):
        return value  # change this

    return hook


_ = e07.check_architecture(architecture)

# %% [markdown]
# <details><summary>Solutions</summary>
#
# In [solutions/s07.py](solutions/s07.py), with the answer to exercise 7.3 in words.
#
# </details>

# %% [markdown]
# *Before*: [6. Eviction: what you lose when you forget](06_eviction.ipynb). *Next*: [8. Proving:
# how to know that it is true, and that your test can fail](08_proving.ipynb).
