# %% [markdown]
# # 11. The atlas: one of each kind
#
# After this chapter you can say of a way of treating the cache what its state is, what stays
# exact, what is bounded and what is lost; and you can turn a cache that loses into a decoder that
# does not.
#
# *Time*: 90 minutes, 55 of them for the exercises. *Needs*: chapters 4 to 7; no weights, no GPU.

# %%
import matplotlib.pyplot as plt
import numpy as np
from exercises import e11

from minikv.atlas import entries, entry_named
from minikv.atlas.ground import kv, small_model, text

plt.rcParams.update({"font.size": 13, "figure.constrained_layout.use": True, "figure.dpi": 110})

counts = {}
for found in entries().values():
    counts.setdefault(str(found.kind), []).append(found.built)
for kind, built in counts.items():
    print(f"{kind:14} {len(built):2} systems, {sum(built):2} run here")

# %% [markdown]
# Each that runs is one small file in `minikv/atlas/systems/`, which says the rule, the departures
# from its paper that are known, and what its authors claim and do not. `minikv atlas NAME` shows
# one and compares bits. Here is that comparison as a function.


# %%
def show(name):
    """The comparisons of a system, controls marked."""
    print(f"{entry_named(name).title}: {entry_named(name).kind}, {entry_named(name).verdict}")
    print(f"  the state: {entry_named(name).state}")
    for comparison in entry_named(name).demonstrate():
        mark = "differs, as it must:" if comparison.control else "holds:"
        print(f"  {mark:20} {comparison.what}")


# %% [markdown]
# ## 11.1 Evicting: a theorem about gates, and what is not forgotten
#
# TRIM-KV learns a gate for each token: a token is worth `gate ** age`. Its authors observe that
# the learnt gates look like attention sinks and sliding windows. With gates that are *given* this
# is no observation: equal gates are a window, and gates of 1 for the first tokens are
# StreamingLLM.

# %%
show("trim_kv")

# %% [markdown]
# TIM prunes a span of text that is done with. Is it then forgotten? The rows that stay are
# compared with those of a text that never had the span, at the same positions.
#
# **Predict before you run.** At which layers are the rows behind the span those of a text that
# never had it?
#
# <details><summary>Answer</summary>At layer 0 alone.</details>

# %%
show("tim")

# %% [markdown]
# At layer 0 keys and values know their own token alone: forgotten. From layer 1 on they are made
# from streams that have *attended* to the span. The cache is pruned, the streams are not:
# **evicting is not forgetting**. By how much do the rows differ? Five layers, and a span of four
# tokens.

# %%
model = small_model(layers=5)
ids = text(tokens=40)
start, stop = 10, 14
kept = np.r_[0:start, stop:40]
with_span = kv(model, ids)[1]

from minikv.decoder import Span, block, embed
from minikv.projection import kv_from_residual

stream = embed(model.weights, np.array(ids)[kept])
drift = []
for layer in model.layers:
    without = kv_from_residual(stream, kept, layer)[1]
    rows = with_span[layer.index][kept][start:]
    moved = np.linalg.norm(rows - without[start:], axis=-1) / np.linalg.norm(
        without[start:], axis=-1
    )
    drift.append(moved.ravel())
    stream = block(layer, stream, kept, [Span(slice(0, len(kept)), kept)])
print("rows of layer 0 that differ:", int((drift[0] > 0).sum()), "of", drift[0].size)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(8, 4))
axes.boxplot(drift, tick_labels=[str(n) for n in range(5)])
axes.set_xlabel("layer")
axes.set_ylabel("change of a value, share of its length")
plt.show()

# %% [markdown]
# ## 11.2 Selecting: reading until little is left
#
# Systems that select keep everything and read a part. S2O reads from the most important key down
# and stops. Stop when the weight that is left is at most $\varepsilon$, and T9 says what may have
# been lost: $2 \varepsilon \max \|v\|$ in each head.

# %%
from minikv.atlas.ground import full_head_outputs, last_outputs, new_full
from minikv.atlas.systems.s2o import EarlyStop

_, full, values = full_head_outputs()
longest = np.linalg.norm(values, axis=-1).max(axis=0)  # of each K/V head
budgets = [0.4, 0.2, 0.1, 0.05, 0.02, 0.01]
moved = []
for eps in budgets:
    _, z = last_outputs(EarlyStop(new_full(), eps))
    moved.append(max(np.linalg.norm(z[h] - full[h]) / longest[h // 2] for h in range(4)))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(8, 4))
axes.loglog(budgets, [2 * eps for eps in budgets], "k--", label="the bound, 2 eps")
axes.loglog(budgets, np.maximum(moved, 1e-9), "o", label="the head that moved furthest")
axes.set_xlabel("eps, weight that is not read")
axes.set_ylabel("move of an output / max|v|")
axes.set_ylim(1e-3, 2)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 11.3 Quantising: how far may a score move
#
# Rounded keys move scores; softmax does not care about a shift of all of them, only about the
# spread of the moves, $2\delta$. The weights then change by $2 \tanh(\delta/2)$ at most, in all,
# and no smaller factor will do. Rounded values change an output by what they are off, and no
# more.

# %%
show("kv_tuner")

# %% [markdown]
# Beside each quantised cache stands what loses nothing: keys and values made again from residuals
# (T1). That costs time, and no bits.
#
# ## 11.4 Merging: equal rows are not one row
#
# Merge two equal keys to one, and softmax sees one where there were two. The one that is left
# needs the logarithm of their number on its score.

# %%
show("chelsea")

# %% [markdown]
# ## 11.5 Reusing: which rows must be made again
#
# A passage was cached behind one prefix, and is wanted behind another. Its rows at layer 0 are
# right. Which others must be made again, so that the whole cache is exact? Not one of those that
# change may be left out, and to make a row at layer l its stream must have been made at all
# layers below.

# %%
from minikv.atlas.reuse import least, unchanged

model = small_model(layers=4)
old, new = text(tokens=16), (*text(1)[:5], *text(tokens=16)[5:])
same = unchanged(kv(model, old), kv(model, new))
print("rows that stay, layer by layer:", same.sum(axis=1).tolist(), "of 16")
print("rows to make:                  ", least(same).sum(axis=1).tolist())
show("relay_caching")

# %% [markdown]
# Here every row behind the change changes, at every layer: what one saves is the prefix before the
# change. Where a row that changes is not made again, the cache is not exact.
#
# ## 11.6 Speculating: a lossy cache makes a lossless decoder
#
# Let the cache that loses *guess*, and the full one *verify*: one call of the decoder for a whole
# guess, of which the longest right beginning is kept. Under exact arithmetic the tokens, the
# logits and the cache are those of one token at a time, whatever is guessed.
#
# **Predict before you run.** A draft guesses five tokens at a time, and all of them are always
# wrong. Which tokens come out, and after how many calls of the decoder?
#
# <details><summary>Answer</summary>The same, after as many calls as without a draft: each call
# says one token of its own, the one behind what was right of the guess.</details>

# %%
show("lookahead")

# %%
import minikv
from minikv.atlas.speculation import CacheDraft, Speculator

config = minikv.tiny_config(num_hidden_layers=3, tie_word_embeddings=False)
model = minikv.random_model(config, 4, "exact", scale=2.0)
prompt = [int(token) for token in np.random.default_rng(2).integers(0, 97, 30)]
plain = list(model.generate(prompt, 30, stop=()))
print("budget  accepted  calls of the verifier  same tokens")
for budget in (4, 8, 16, 24):
    draft = CacheDraft(model.weights, model.new_cache("h2o", budget=budget), 5)
    speculator = Speculator(model.weights, model.new_cache(), draft)
    tokens = list(speculator.tokens(prompt, 30))
    told = speculator.figures
    print(f"{budget:6}  {told.accepted:3} of {told.drafted:3}  {told.calls:21}  {tokens == plain}")

# %% [markdown]
# Generate with a real model in the same way: `minikv generate "Once upon a time" --draft h2o
# --budget 64`. Quasar, which verifies in few bits, is the negative twin: there the verifier
# decides what comes out, and it is another model.
#
# ## 11.7 Splitting: attention in parts
#
# The largest score, the denominator, and the weighted sum: three numbers for each part of the
# keys, which merge in any order. In the reals. In floats each merge rounds, and the merge of
# TokenRing has not the bits of one pass, where a protocol of maxima and exact sums has.

# %%
show("token_ring")

# %% [markdown]
# ## 11.8 Another state
#
# A layer with a delta rule keeps one matrix a head, however long the text. It is a function of
# *all* tokens: no row of a stream gives it back, so "the residual stream of a token is all" does
# not hold of it, and the cure is to keep the matrix. Its chunked form is its recurrent form,
# since two steps are one step of the same kind.

# %%
show("kimi_linear")

# %% [markdown]
# ## What to take along
#
# * Of a way of treating the cache ask four things: what its state is, what stays exact, what is
#   bounded, what is lost.
# * Evicting is not forgetting: the streams of later tokens have attended to what was dropped.
# * A cache that loses may guess for one that does not: under exact arithmetic the verifier alone
#   decides what comes out, and the guess how many calls that takes.
#
# ## References
#
# * [The atlas](../docs/atlas.md): every system, with its paper.
# * Leviathan, Kalman and Matias 2023, *Fast Inference from Transformers via Speculative Decoding*,
#   [arXiv 2211.17192](https://arxiv.org/abs/2211.17192): drafts and a verifier.
# * Milakov and Gimelshein 2018, *Online normalizer calculation for softmax*, [arXiv
#   1805.02867](https://arxiv.org/abs/1805.02867): attention in parts.
# * Words: the [glossary](../docs/glossary.md).
#
# ## Exercises
#
# Replace the body of each function, and run the cell: the check says what is wrong, as often as
# you like.
#
# ### Exercise 11.1: gates (one star, 10 minutes)
#
# `keep(tokens, gates, budget)`: `tokens` are positions, ascending; `gates[t]` is the gate of
# token t, above 0 and at most 1. A token is worth its gate to the power of its age, where the
# newest has age 1. Return the `budget` tokens that are worth most, of equals the newer,
# ascending.
#
# <details><summary>Hint</summary>
#
# Powers of small gates underflow to 0 for old tokens; logarithms do not.
#
# </details>


# %%
def keep(tokens, gates, budget):
    return tokens[-budget:]  # replace this


_ = e11.check_keep(keep)

# %% [markdown]
# ### Exercise 11.2: merge (two stars, 15 minutes)
#
# `merge(one, two)`: each is `(m, s, z)`, the largest score of some keys, the sum of `exp(score -
# m)`, and the sum of `exp(score - m) * value`; of no keys at all `(-inf, 0, 0 * value)`. Return
# that of both together.
#
# <details><summary>Hint</summary>
#
# The sums of a part count from its own largest score. By which factor does each change when it
# counts from a larger one? And what is minus infinity less minus infinity?
#
# </details>


# %%
def merge(one, two):
    return max(one[0], two[0]), one[1] + two[1], one[2] + two[2]  # replace this


_ = e11.check_merge(merge)

# %% [markdown]
# ### Exercise 11.3: the fewest rows (two stars, 15 minutes)
#
# `fewest(changes)`: `changes[l, p]` says whether the row of position p at layer l changes. Return
# the table of the rows that must be made, and no more, so that the cache is exact.
#
# <details><summary>Hint</summary>
#
# A row at layer 3 is made from the stream that layer 2 wrote at its position.
#
# </details>


# %%
def fewest(changes):
    return changes  # replace this


_ = e11.check_fewest(fewest)

# %% [markdown]
# ### Exercise 11.4: accept (two stars, 15 minutes)
#
# `accept(draft, logits)`: the verifier was fed the last token and `draft`, and `logits` has a row
# for each, one more than the draft has tokens. Return the tokens that greedy decoding would have
# said: the longest right beginning of the draft, and the token behind it.
#
# <details><summary>Hint</summary>
#
# Row i says what follows the first i tokens of the draft. After a wrong one, all rows are of a
# text that nobody says.
#
# </details>


# %%
def accept(draft, logits):
    return draft  # replace this


_ = e11.check_accept(accept)

# %% [markdown]
# <details><summary>Solutions</summary>
#
# In [solutions/s11.py](solutions/s11.py).
#
# </details>

# %% [markdown]
# *Before*: [10. Conform: your own cache, and whether a difference is rounding or a
# bug](10_conform.ipynb).
