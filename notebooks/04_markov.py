# %% [markdown]
# # 4. The Markov property
#
# After this chapter you can say what "the residual stream is all the state" means, test it by
# patching one text's stream into another, and prove it. You also know why the zero that the test
# gives is worth something, and where a zero would be worth nothing.
#
# *Time*: 195 minutes, 90 of them for the exercises; in two sittings, with a rest after section 4.7.
# *Needs*: chapters 1 to 3, the weights of `smollm2-135m-instruct` (`minikv fetch`), and no GPU.

# %%
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from exercises import e04, unless_solved

import minikv
from minikv import kl_divergence
from minikv.decoder import Span, block, unembed
from minikv.experiments.plots import COLOURS
from minikv.verify import same_bits

plt.rcParams.update({"font.size": 13, "figure.dpi": 90, "figure.constrained_layout.use": True})
model = minikv.load("smollm2-135m-instruct", "exact")
layers = model.config.num_hidden_layers
print(layers, "blocks,", model.config.hidden_size, "numbers in a residual vector")

# %% [markdown]
# ## 4.1 States and steps
#
# A process is *Markov* if its next state depends on its present state alone: whoever knows the
# present can forget the past. Here time is depth. The state at layer $l$ is the residual stream, a
# matrix $H_l$ with one row for each position, and block $l$ makes the next state from it:
#
# $$ H_{l+1} = B_l(H_l), \qquad z_p = U(h_{L,p}). $$
#
# Nothing here is random. The claim is that this equation is *true of the program*: that block $l$
# has no other source, no value that an earlier layer left somewhere, no memory of an earlier call.
# If it is, then two texts with the same $H_l$ at one layer have the same logits, whatever happened
# below that layer. That is theorem T2.
#
# We take two texts of the same length that have nothing in common. One is the **donor**, the other
# the **recipient**.

# %%
DONOR, RECIPIENT = "The capital of France is the city of", "Once upon a time there was a little"
donor, recipient = (model.tokenizer.encode(text) for text in (DONOR, RECIPIENT))
words = [[model.tokenizer.decode([i]) for i in ids] for ids in (donor, recipient)]
print(words[0], words[1], sep="\n")

donor_logits, donor_acts = model.run_with_cache(donor)
recipient_logits, recipient_acts = model.run_with_cache(recipient)


def next_word(logits):
    """The most probable next token, as text."""
    return model.tokenizer.decode([int(np.argmax(logits))])


print(repr(next_word(donor_logits[-1])), repr(next_word(recipient_logits[-1])))

# %% [markdown]
# ## 4.2 A transplant
#
# Let the recipient run up to layer 12, replace its whole stream there by the donor's, and let the
# program go on. `run_with_hooks` does this: a hook sees an activation by its name and may return
# another one.

# %%
name = "blocks.12.hook_resid_pre"
patched = model.run_with_hooks(recipient, {name: lambda value, _: donor_acts[name]})
print("next word:", repr(next_word(patched[-1])))
print("same bits as the donor:", same_bits(patched, donor_logits))

# %% [markdown]
# The recipient was about to tell of a girl. It now names a city in France, and not approximately:
# all logits, at all positions, have the donor's bits. For this it matters that the model runs on
# the arithmetic `exact` of chapter 3.
#
# To compare distributions we use the Kullback-Leibler divergence, in nats,
#
# $$ D_{KL}(p \,\|\, q) = \sum_i p_i \,(\ln p_i - \ln q_i), $$
#
# with $p$ the donor's next-token distribution and $q$ the patched one. It is 0 if and only if $p =
# q$. If the logits have the same bits, each term is $p_i \cdot 0$, and the computed value is
# exactly 0, not a small number.
#
# ## 4.3 Every layer at once
#
# One patched text for each layer would be thirty passes. But a row's result does not depend on
# which rows share the call (T6), so thirty copies of the recipient can share one pass, each
# patched at its own layer. What a patch does to the stream is yours to write.
#
# ### Write 4.1: a patch (one star, 5 minutes)
#
# `value` is a stream, (T, D); `rows` are the numbers of the rows to replace, in any order; `donor`
# holds their replacements, one for each. Return the patched stream. The array that you were given
# belongs to the program: leave it as it is.
#
# <details><summary>Hint</summary>Make a <code>value.copy()</code> first. An array can be indexed by
# a list of rows, also on the left of <code>=</code>.</details>


# %%
def patched_rows(value, rows, donor):  # (T, D), (n,), (n, D) -> (T, D)
    return None


_ = e04.check_patched_rows(patched_rows)


# %% tags=["solution", "hide-input"] jupyter={"source_hidden": true}
@unless_solved(patched_rows)
def patched_rows(value, rows, donor):
    patched = value.copy()
    patched[rows] = donor
    return patched


# %%
def patch_many(donor_acts, recipients, patches, model=model):
    """Last logits of each recipient, given the donor's rows at its (layer, positions)."""
    length = len(recipients[0])

    def hook(name, value):
        if name.endswith("hook_resid_pre"):
            for copy, (layer, at) in enumerate(patches):
                if name == f"blocks.{layer}.hook_resid_pre":
                    acts = donor_acts[copy] if isinstance(donor_acts, list) else donor_acts
                    value = patched_rows(value, copy * length + np.array(at), acts[name][at])
        return value

    return model.forward(recipients, logits="last", hook=hook)


def divergence(patches):
    """D_KL(donor, patched) at the last position, in nats, one number for each patch."""
    logits = patch_many(donor_acts, [recipient] * len(patches), patches)
    return kl_divergence(np.array([donor_logits[-1]] * len(patches)), logits)


length = len(donor)
everything, last, past = list(range(length)), [length - 1], list(range(length - 1))
whole_stream = divergence([(layer, everything) for layer in range(layers)])
print("whole stream: layers with D_KL = 0:", int((whole_stream == 0).sum()), "of", layers)

# %% [markdown]
# Thirty zeros. Before we believe in them we have to see the same experiment give something else.
#
# ## 4.4 Is the zero vacuous?
#
# An experiment that cannot give anything but zero shows nothing. There are two ways in which this
# one could be empty.
#
# 1. *The measure might be blind.* Then it would give zero for incomplete patches too. So we patch
#    less: the last position alone, or all positions but the last.
# 2. *Nothing of the recipient might be left to disturb.* If we computed the logits from $H_l$ in a
#    fresh program, the recipient would not take part at all. Here it does: the lower blocks have
#    run on the recipient, in the same call, and anything that they kept outside the stream would
#    now reach the logits. The zero says that there is nothing. In chapter 7 the same experiment,
#    on models that do keep something, is not zero.
#
# **Predict before you run.** Patch only the last row of the donor's stream, at every layer. At the
# highest layer the last row has read everything. Is the divergence 0 there?
#
# <details><summary>Answer</summary>No. The last block still attends to all positions once more,
# and these are the recipient's: nearly 0, and not 0.</details>

# %%
last_row = divergence([(layer, last) for layer in range(layers)])
past_rows = divergence([(layer, past) for layer in range(layers)])
for title, kl in (("last position alone", last_row), ("all but the last", past_rows)):
    zeros = int((kl == 0).sum())
    print(f"{title}: {zeros} zeros of {layers}; from {kl.min():.2g} to {kl.max():.2g} nats")

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(9, 4.5))
for kl, label, colour, marker in (
    (past_rows, "all but the last position", COLOURS[1], "s"),
    (last_row, "the last position alone", COLOURS[2], "D"),
    (whole_stream, "the whole stream", COLOURS[0], "o"),
):
    axes.plot(range(layers), kl, color=colour, marker=marker, label=label, linewidth=2)
axes.set_xlabel("layer at which the donor's rows are patched in")
axes.set_ylabel("$D_{KL}$(donor, patched) (nats)")
axes.grid(alpha=0.3)
axes.legend(frameon=False, title="what is patched", loc="center left", bbox_to_anchor=(1.0, 0.5))
plt.show()

# %% [markdown]
# The blue line is at 0, at every layer. The others cross. In low layers the last row holds little
# more than its own token, and what comes next is decided by the past that attention will still
# read. In high layers the last row has collected what it needs: to patch it is nearly enough, and
# to patch everything else does nearly nothing. "Nearly": even before the last block the divergence
# is not 0, because that block attends to all positions once more.
#
# So the sentence "the residual stream is the state" has a condition in it that is easily lost.
# **The state is the stream at all positions.** One vector is not enough, and the state grows with
# the text.
#
# ## 4.5 One position at a time
#
# Now patch a single position. Each cell is one patched text: 10 layers and 8 positions, 80 texts,
# again in one call.

# %%
some = list(range(0, layers, 3))
cells = divergence([(layer, [p]) for layer in some for p in range(length)])
cells = cells.reshape(len(some), length)
columns = np.column_stack([cells, past_rows[some], whole_stream[some]])
print("single positions: zeros", int((cells == 0).sum()), "of", cells.size)

# %%
labels = [f"{p}: {word.strip()}" for p, word in enumerate(words[0])]
labels += ["all but last", "whole stream"]

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(10, 5.5))
image = axes.imshow(columns, cmap="cividis", aspect="auto", origin="lower", vmin=0)
for (row, column), value in np.ndenumerate(columns):
    shade = "white" if value < columns.max() / 2 else "black"
    axes.text(
        column,
        row,
        "0" if value == 0 else f"{value:.2g}",
        ha="center",
        va="center",
        color=shade,
        fontsize=12,
    )
axes.axvline(length - 0.5, color="white", linewidth=3)
axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right")
axes.set_yticks(range(len(some)), some)
axes.set_xlabel("patched rows of the stream (position and the donor's token)")
axes.set_ylabel("layer")
figure.colorbar(image, label="$D_{KL}$(donor, patched) (nats)")
plt.show()

# %% [markdown]
# Only the last column holds zeros, written `0`; the column before it, everything but one row,
# holds none. Among the single positions two are darker in the lower half of the model: *France*
# and *city*, the words that decide the answer. *city* fades slowly from layer 12 on, *France* all
# at once between layers 21 and 24, and the last position takes over: by then their information has
# been read into it. Even there the number is small and not 0.
#
# Try other rows. The first cell asks for one layer and a range of positions; in a live session the
# second has sliders for them, which a page without a kernel does not show.


# %%
def try_patch(layer, rows):
    """What the recipient says next, with the donor's rows first..last patched in at a layer."""
    first, final = rows
    at = list(range(first, final + 1))
    logits = patch_many(donor_acts, [recipient], [(layer, at)])
    lost = kl_divergence(donor_logits[-1:], logits)[0]
    said = next_word(logits)
    print(f"layer {layer}, positions {first} to {final}: {said!r}, D_KL {lost:.3g} nats")


try_patch(12, (3, 6))

# %%
from ipywidgets import IntRangeSlider, IntSlider, interact

_ = interact(
    try_patch,
    layer=IntSlider(12, 0, layers - 1, description="layer", continuous_update=False),
    rows=IntRangeSlider(
        value=(3, 6), min=0, max=length - 1, description="positions", continuous_update=False
    ),
)

# %% [markdown]
# ## 4.6 Across tasks
#
# The two texts above were chosen by hand. Here are four of different kinds, each as donor to each
# other one, at six layers.

# %%
TEXTS = {
    "fact": DONOR,
    "story": RECIPIENT,
    "code": "def mean(values):\n    return sum(values) / len",
    "arithmetic": "12 + 7 = 19. 6 * 8 =",
}
ids = {kind: model.tokenizer.encode(text)[:length] for kind, text in TEXTS.items()}
runs = {kind: model.run_with_cache(text) for kind, text in ids.items()}
at_layers = [0, 6, 12, 18, 24, 29]
pairs = [(a, b, layer) for a in ids for b in ids if a != b for layer in at_layers]
got = patch_many(
    [runs[a][1] for a, _, _ in pairs],
    [ids[b] for _, b, _ in pairs],
    [(layer, everything) for _, _, layer in pairs],
)
same = [same_bits(row, runs[a][0][-1]) for row, (a, _, _) in zip(got, pairs, strict=True)]
print(len(pairs), "transplants;", sum(same), "with the donor's bits")

# %% [markdown]
# ## 4.7 What a patch can reach: causality
#
# Replace one row, position 3 at layer 10, and compare every row of every layer with the
# recipient's. What changes?
#
# **Predict before you run.** One row is replaced: position 3 at layer 10. Which rows of which
# layers change?
#
# <details><summary>Answer</summary>At layer 10 that row alone; above it positions 3 and later, all
# of them. Nothing below layer 10, and no row before position 3.</details>


# %%
def with_one_row(name, value):
    if name == "blocks.10.hook_resid_pre":
        value = value.copy()
        value[3] = donor_acts[name][3]
    if name.endswith("hook_resid_pre"):
        changed[int(name.split(".")[1])] = np.linalg.norm(value - recipient_acts[name], axis=1)
    return value


changed = np.zeros((layers, length))
model.forward([recipient], logits="none", hook=with_one_row)
reached = changed > 0
print("rows changed before position 3:", int(reached[:, :3].sum()))
print("rows changed below layer 10:   ", int(reached[:10].sum()))
print("rows changed at layer 10:      ", np.flatnonzero(reached[10]))
print("rows changed above, of", (layers - 11) * (length - 3), ":", int(reached[11:, 3:].sum()))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(8, 5.5))
shown = np.where(reached, np.log10(np.maximum(changed, 1e-9)), np.nan)
image = axes.imshow(shown, cmap="cividis", aspect="auto", origin="lower")
axes.set_facecolor("#dddddd")
axes.set_xticks(range(length), [f"{p}\n{word.strip()}" for p, word in enumerate(words[1])])
axes.set_xlabel("position and the recipient's token")
axes.set_ylabel("layer")
axes.set_title("grey: not one bit differs", fontsize=13, loc="left")
figure.colorbar(image, label="$\\log_{10}$ of the distance to the unpatched row")
plt.show()

# %% [markdown]
# The patch reaches its own position and those after it, from the next layer on, and nothing else.
# Rows before it keep every bit: this is **causality** (T8), the property that makes a cache
# possible. A later token changes no earlier row, so what was computed for the earlier rows stays
# true.
#
# **Prefix** (T10) is the same fact seen from below. A key at layer 0 knows its token and its
# position; one layer up it depends on the whole prefix. We put the donor's last token at the end
# of the recipient and compare the keys there:

# %%
swapped = [*recipient[:-1], donor[-1]]
swapped_acts = model.run_with_cache(swapped)[1]
keys = [f"blocks.{layer}.attn.hook_rot_k" for layer in range(layers)]
equal = [same_bits(swapped_acts[key][-1], donor_acts[key][-1]) for key in keys]
print("layers at which the last key is the same after another prefix:", np.flatnonzero(equal))

# %% [markdown]
# ---
#
# **A rest.** Here ends the first sitting, with exercises 4.1 to 4.3, which need no more than this.
# The second is about the proof: sections 4.8 to 4.10 and the other exercises. On another day run
# all cells above once (in JupyterLab: *Run*, *Run All Above Selected Cell*), and read on here. What
# you bring along: the whole stream at one layer determines all logits, less than the whole does
# not, and a change reaches no earlier position.
#
# ---
#
# ## 4.8 Replay
#
# If $H_l$ determines the rest, then there is a function that computes the rest from $H_l$, and we
# can write it down: the blocks from $l$ up, then the output map. That is **replay** (T5). A
# checkpoint is a saved $H_l$.
#
# ### Write 4.2: replay (two stars, 15 minutes)
#
# Return the logits of every position, (T, V), from the stream before block `start`. The library's
# `block(layer, stream, positions, spans)` runs one block; the spans say which rows belong to one
# text, here all: `[Span(slice(0, T), positions)]`. `unembed(model.weights, stream)` is the output
# map $U$.
#
# <details><summary>Hint</summary>The blocks are <code>model.layers[start:]</code>, the positions
# <code>np.arange(len(stream))</code>. Each block takes the stream that the one before it has
# returned.</details>


# %%
def replay(model, stream, start):  # (T, D) -> (T, V)
    return None


_ = e04.check_replay(replay)


# %% tags=["solution", "hide-input"] jupyter={"source_hidden": true}
@unless_solved(replay)
def replay(model, stream, start):
    positions = np.arange(len(stream))
    for layer in model.layers[start:]:
        stream = block(layer, stream, positions, [Span(slice(0, len(stream)), positions)])
    return unembed(model.weights, stream)


# %%
for start in (0, 10, 29):
    logits = replay(model, donor_acts[f"blocks.{start}.hook_resid_pre"], start)
    print(f"replayed from layer {start}: same bits:", np.array_equal(logits, donor_logits))

# %% [markdown]
# Note the direction. From $H_l$ follow the layers above. The layers below do not: a block adds to
# the stream, and what it added cannot be taken out again without knowing what it was. Only $H_0$,
# which is the token ids looked up in a table, gives everything.
#
# ## 4.9 The proof, three times
#
# **In prose.** Let $H_l(x) = H_l(y)$. Suppose $H_m(x) = H_m(y)$ for some $m \ge l$. Then
# $H_{m+1}(x) = B_m(H_m(x)) = B_m(H_m(y)) = H_{m+1}(y)$, since $B_m$ has no other argument. By
# induction $H_L(x) = H_L(y)$, and $z = U(H_L)$. $\square$
#
# The proof is three lines because all of the work is in the hypothesis: *$B_m$ has no other
# argument*. It is about the program, and no amount of mathematics shows it. Tests on random models
# can refute it; the dataflow certificate (`minikv.verify`, chapter 8) follows every value through
# the real code.
#
# **As a property.** Hypothesis draws models and texts, and looks for one that refutes the
# statement:

# %%
from exercises import smallest
from hypothesis import strategies as st

sizes = st.tuples(st.integers(1, 4), st.integers(0, 9), st.integers(1, 6), st.integers(0, 99))


def donor_wins(drawn, only_last=False):
    """T2 on one random model: blocks, seed of the weights, tokens, seed of the texts."""
    blocks, seed, tokens, texts = drawn
    small = minikv.random_model(minikv.tiny_config(num_hidden_layers=blocks), seed, "exact")
    x, y = np.random.default_rng(texts).integers(0, 97, (2, tokens))
    logits, acts = small.run_with_cache(x)
    for layer in range(blocks):
        name = f"blocks.{layer}.hook_resid_pre"

        def patch(value, _, name=name):
            return acts[name] if not only_last else np.concatenate([value[:-1], acts[name][-1:]])

        if not np.array_equal(small.run_with_hooks(y, {name: patch})[-1], logits[-1]):
            return False
    return True


print("whole stream, refuted by:", smallest(sizes, lambda drawn: not donor_wins(drawn)))
print("last row only, refuted by:", smallest(sizes, lambda drawn: not donor_wins(drawn, True)))

# %% [markdown]
# No refutation of the first among 200 models. The second falls at once, and what you see is the
# simplest refutation: one block and two tokens. With one token the last row *is* the whole stream.
#
# **In Rocq.** A proof that a program has checked, about every decoder of this form: arbitrary
# types of rows and logits, any number of layers. `stream l toks` is $H_l$, `outputs` is the list
# of the $z_p$.

# %%
rocq = Path("../proofs/rocq")
theorems, controls = (
    (rocq / name).read_text(encoding="utf-8") for name in ("Markov.v", "Needed.v")
)


def show(name, source=theorems):
    """Print a statement, with its proof."""
    pattern = rf"^(Theorem|Lemma|Example) {name}\b.*?Qed\."
    print(re.search(pattern, source, re.DOTALL | re.MULTILINE)[0], end="\n\n")


show("run_from_stream")
show("markov")
show("patched_is_donor")

# %% [markdown]
# `markov` is our three lines: both outputs are the same function of the stream, and the streams
# are equal. The induction sits in `run_from_stream`, in a library lemma about `fold_left`.
# `patched_is_donor` is the transplant: a run with the donor's stream patched in at layer `l` gives
# the donor's outputs, whoever the recipient is.
#
# The control is proved too, in `Needed.v`. Tokens are integers, and two layers add up the past:

# %%
show("last_row_is_not_enough", controls)


def adds_up(rows):
    """One layer: each position becomes the sum of the rows up to its own."""
    return np.cumsum(rows)


print("donor:    ", adds_up(adds_up([1, 4])))
print("recipient:", adds_up(adds_up([3, 4])))
print("last row: ", adds_up([*adds_up([3, 4])[:1], adds_up([1, 4])[1]]))

# %% [markdown]
# The theorem stands for all decoders of the form, and says nothing about whether
# `minikv/decoder.py` has it. The property is about the real code, and only about the cases drawn.
# Neither replaces the other.
#
# ## 4.10 Sliding windows: a state with an end
#
# "All positions" is a large state. Some architectures make it smaller: in Mistral 7B and in most
# layers of Gemma 3 a row attends to the newest $w$ positions only, its own included. Then only
# some rows of $H_l$ can still change the last output. Which? Ask the program: patch every single
# position, at every layer, and see whether one bit of the last logits changes.
#
# The models are tiny and random, with six layers and a window of four. In the first, all layers
# have the window; in the second, layer 3 sees everything.

# %%
WINDOW, DEPTH, LENGTH = 4, 6, 24
draw = np.random.default_rng(0)
text = draw.integers(0, 97, LENGTH)
stranger = (text + draw.integers(1, 97, LENGTH)) % 97  # another token at every position


def local_model(seeing_all=()):
    """A random model with sliding windows, except in the layers named."""
    types = tuple(
        "full_attention" if at in seeing_all else "sliding_attention" for at in range(DEPTH)
    )
    shape = minikv.tiny_config(
        model_type="mistral", num_hidden_layers=DEPTH, sliding_window=WINDOW, layer_types=types
    )
    return minikv.random_model(shape, 4, "exact")


def influence(local):
    """How far each single row, patched at each layer, moves the last logits: (layers, positions)"""
    own, other = local.logits(text)[-1], local.run_with_cache(stranger)[1]
    cells = [(layer, [p]) for layer in range(DEPTH) for p in range(LENGTH)]
    moved = patch_many(other, [text] * len(cells), cells, local)
    differ = (moved.view(np.uint32) != own.view(np.uint32)).any(axis=1)
    size = np.abs(moved - own).max(axis=1)
    return [x.reshape(DEPTH, LENGTH) for x in (differ, size)]


models = {"all layers slide": local_model(), "layer 3 sees everything": local_model({3})}
found = {title: influence(local) for title, local in models.items()}
for title, (differ, _) in found.items():
    print(f"{title}: positions of H_l that change the last output")
    for layer in range(DEPTH):
        at = np.flatnonzero(differ[layer])
        reach = models[title].config.reach(layer, DEPTH)
        print(f"  l = {layer}: {at.min():2} to {at.max()}, {len(at):2} in all; reach {reach}")

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(2, 1, figsize=(10, 7.2), sharex=True)
for panel, (title, (differ, size)) in zip(axes, found.items(), strict=True):
    shown = np.where(differ, np.log10(np.maximum(size, 1e-9)), np.nan)
    image = panel.imshow(shown, cmap="cividis", aspect="auto", origin="lower", vmin=-4, vmax=1)
    panel.set_facecolor("#dddddd")
    reach = [models[title].config.reach(layer, DEPTH) for layer in range(DEPTH)]
    first = [0 if r is None else max(0, LENGTH - 1 - r) for r in reach]
    panel.stairs(
        np.array(first) - 0.5,
        np.arange(DEPTH + 1) - 0.5,
        orientation="horizontal",
        baseline=None,
        color=COLOURS[1],
        linewidth=4,
    )
    panel.set_yticks(range(DEPTH))
    panel.set_ylabel("layer $l$")
    panel.set_title(f"{title} (grey: not one bit changes)", fontsize=13, loc="left")
axes[-1].set_xticks(range(0, LENGTH, 2))
axes[-1].set_xlabel("patched position of $H_l$")
label = "$\\log_{10}$ of the change in the last logits"
figure.colorbar(image, ax=axes, label=label)
plt.show()

# %% [markdown]
# The orange staircase is not measured but computed: position $n - 1 - r$, where $r$ is
# `config.reach(l, 6)`, the sum of $w_i - 1$ over the layers from $l$ up. Left of it everything is
# grey: not one bit. On its right every cell has changed something, so the bound is attained and
# not merely true. Each layer further down adds one step of three positions. In the second model
# the staircase ends below the layer that sees everything, and from there down all positions count.
#
# This is **receptive field** (T11). *Proof.* Row $p$ of $H_{m+1}$ reads rows $p - (w_m - 1)$ to
# $p$ of $H_m$, and nothing else. Suppose that rows of $H_m$ depend on rows of $H_l$ at most $r$
# positions back; for $m = l$, where $r = 0$, they do. Then row $p$ of $H_{m+1}$ depends on $H_l$ at
# no position before $p - (w_m - 1) - r$. So each layer adds its $w_m - 1$, and by induction the
# reach from $l$ to $m$ is $\sum_{i=l}^{m-1} (w_i - 1)$. $\square$ In Rocq
# ([proofs/rocq/Markov.v](../proofs/rocq/Markov.v)), `agree_from a hs hs'` says that two streams are
# equal from row `a` on:

# %%
show("receptive_field")

# %% [markdown]
# It says what a memory may forget. If no later token can depend on a row of $H_l$, then a
# checkpoint at layer $l$ need not keep it: `Residual(forget=True)`, the cache of chapter 5, drops
# such rows, and all its logits keep their bits. For how many rows stay, see exercise 4.5. Mind the
# layer that sees everything: in Gemma 3 every sixth does, so the embedding alone can forget
# nothing, while with a checkpoint at every layer five of six need one window.
#
# ## What to take along
#
# * The stream at **all** positions of **one** layer determines everything above: $D_{KL} = 0$, bit
#   for bit (T2, T5).
# * The zero means something because less than the whole stream gives more than zero, and because
#   the recipient took part.
# * Nothing reaches an earlier position (T8). Above layer 0 a row depends on its whole prefix
#   (T10); where all layers have windows, on the newest part of it alone (T11).
# * The proof is short; what it assumes about the program is what needs checking.
#
# ## References
#
# * Qasim et al. 2026, *The Residual Stream Is All You Need*, [arXiv
#   2603.19664](https://arxiv.org/abs/2603.19664): the claim, which [The paper, claim by
#   claim](../docs/paper.md) runs.
# * Meng et al. 2022, *Locating and Editing Factual Associations in GPT*, [arXiv
#   2202.05262](https://arxiv.org/abs/2202.05262): patching one run into another.
# * Jiang et al. 2023, *Mistral 7B*, [arXiv 2310.06825](https://arxiv.org/abs/2310.06825), and Gemma
#   Team 2025, *Gemma 3*, [arXiv 2503.19786](https://arxiv.org/abs/2503.19786): sliding windows.
# * [The theorems](../proofs/README.md): T1 to T12, with proofs and controls.
# * Words: the [glossary](../docs/glossary.md).
#
# ## Exercises
#
# Replace the body of each function, and run the cell: the check says what is wrong, as often as
# you like.

# %% [markdown]
# ### Exercise 4.1: a transplant of your own (one star, 10 minutes)
#
# Write `transplant(model, recipient, layer, stream)`: the logits of `recipient` (all positions)
# with its stream before block `layer` replaced by `stream`.
#
# <details><summary>Hint</summary>
#
# `model.run_with_hooks(ids, {name: function})`. The stream *before* block $l$ is `hook_resid_pre`.
#
# </details>


# %%
def transplant(model, recipient, layer, stream):
    return model.logits(recipient)  # replace this


_ = e04.check_transplant(transplant)

# %% [markdown]
# ### Exercise 4.2: a divergence that is exactly zero (two stars, 15 minutes)
#
# Write `divergence(p_logits, q_logits)`: $D_{KL}(p \,\|\, q)$ in nats, for arrays `(..., V)` of
# logits, giving `(...)`. Equal logits must give exactly 0, and logits such as 1000 must not
# overflow.
#
# <details><summary>Hint</summary>
#
# Work with $\ln p_i = x_i - \max x - \ln \sum_j e^{x_j - \max x}$, in float64, and never take the
# logarithm of a probability that may be 0.
#
# </details>


# %%
def divergence(p_logits, q_logits):
    return np.zeros(np.shape(p_logits)[:-1])  # replace this


_ = e04.check_divergence(divergence)

# %% [markdown]
# ### Exercise 4.3: what must be patched? (two stars, 15 minutes)
#
# A model has `layers` blocks. You patch the donor's rows into a recipient at layer `layer`, from 0
# (before the first block) to `layers` (after the last one). Write `needed(layers, layer,
# position)`: the positions, ascending, that have to be patched for the logits at `position` to be
# the donor's *whatever the texts are*, and no more than these.
#
# <details><summary>Hint</summary>
#
# Which rows will a block above `layer` still read? And if there is no block left?
#
# </details>


# %%
def needed(layers, layer, position):
    return [position]  # replace this


_ = e04.check_needed(needed)

# %% [markdown]
# ### Exercise 4.4: replay, token by token (two stars, 15 minutes)
#
# Write `replay_kv(model, start, stream, layer)`: the keys and values that block `layer` attends
# to, as `kv_from_residual` gives them, computed from the stream before block `start` (`start <=
# layer`).
#
# <details><summary>Hint</summary>
#
# Run the blocks `model.layers[start:layer]`, as in Write 4.2, then project:
# `minikv.kv_from_residual(stream, positions, model.layers[layer])`.
#
# </details>


# %%
def replay_kv(model, start, stream, layer):
    return minikv.kv_from_residual(stream, np.arange(len(stream)), model.layers[layer])  # replace


_ = e04.check_replay_kv(replay_kv)

# %% [markdown]
# ### Exercise 4.5: what must a checkpoint keep? (two stars, 15 minutes)
#
# `length` tokens have been read, and $H_l$ at layer `layer` has been saved. Of which positions must
# it be kept, so that the logits of *all later* tokens can be computed? `windows` has one entry a
# layer: how many positions the layer sees, its own included, or `None` for all. `layer` goes up to
# `len(windows)`, which is after the last block. Write `must_keep(windows, layer, length)`: the
# positions, ascending, and no more than these.
#
# <details><summary>Hint</summary>
#
# The next token is at position `length`, and of all later tokens it looks back furthest. Through
# which layers? Can it look back further than to position 0?
#
# </details>


# %%
def must_keep(windows, layer, length):
    return list(range(length))  # replace this


_ = e04.check_must_keep(must_keep)

# %% [markdown]
# ### Exercise 4.6: a model that is not Markov (three stars, 20 minutes)
#
# Tokens are integers, and $H_0$ is the list of tokens. Block 0 replaces each $h$ by its remainder
# $h \bmod 2$. Block 1 adds to each row the sum of the *tokens* up to it: it reads $H_0$ past the
# stream. Give two texts with the same $H_1$ and different outputs, as short as you can. Why does
# this refute the existence of any function from $H_1$ to the outputs?
#
# <details><summary>Hint</summary>
#
# The remainder forgets something. Block 1 remembers it. One token is enough.
#
# </details>

# %%
text_a, text_b = [1, 4], [2, 4]  # replace these
_ = e04.check_two_texts(text_a, text_b)

# %% [markdown]
# <details><summary>Solutions</summary>
#
# In [solutions/s04.py](solutions/s04.py). To exercise 4.6: a function gives equal outputs for equal
# arguments, so one pair of texts with equal arguments and different outputs refutes them all. In
# Rocq: `vr_not_markov`.
#
# </details>

# %% [markdown]
# *Before*: [3. Floating point: the same row, other bits](03_floating_point.ipynb). *Next*: [5.
# Cache, no cache, checkpoints](05_kv_direct.ipynb).
