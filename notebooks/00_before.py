# %% [markdown]
# # 0. Before the first chapter
#
# After this chapter you know whether you bring what the course needs, what a token is and how a
# vocabulary is made, why a language model wants attention, and whether your machine computes as all
# others do.
#
# *Time*: 45 minutes, 25 of them for the exercises. *Needs*: Python; no weights, no GPU.
#
# ## 0.1 What you should know
#
# * **Python**: functions, lists, dictionaries, classes with methods.
# * **NumPy**: shapes, broadcasting, indexing by a list, `axis=` and `keepdims=True`, `@`. Its
#   [absolute basics](https://numpy.org/doc/stable/user/absolute_beginners.html) are enough.
# * **Mathematics**: vectors, dot product and length; a matrix as a map; $e^x$ and $\ln x$; what a
#   probability is. Chapters 4 and 8 prove by induction.
#
# You need not know what a transformer is, how models are trained, or anything about GPUs. Words
# that are new are explained where they come up, and once more in the
# [glossary](../docs/glossary.md); [papers](../docs/papers.md) has all that the course cites.

# %%
from collections import Counter
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from exercises import e00

import minikv
from minikv.experiments.plots import COLOURS
from minikv.fingerprint import fingerprint

plt.rcParams |= {"font.size": 14, "figure.constrained_layout.use": True}

rows = np.arange(6.0).reshape(2, 3)
print(rows / rows.sum(axis=1, keepdims=True))

# %% [markdown]
# If that line and its output are no surprise, you know enough NumPy.
#
# ## 0.2 Tokens
#
# A language model does not read letters. It reads *tokens*: pieces of text from a fixed list, the
# vocabulary, each with a number, its *id*. Whole words would make a list without an end; single
# letters would make texts very long. **Byte-pair encoding** (Sennrich et al. 2016, [arXiv
# 1508.07909](https://arxiv.org/abs/1508.07909)) lies in between: start from letters, find the pair
# of neighbours that comes most often in a large text, make it a piece of its own, and repeat.
#
# **Predict before you run.** A text of "low" five times, "lower" twice, "newest" six times and
# "widest" three times. Which pair of letters is merged first?
#
# <details><summary>Answer</summary>"e" and "s": six times in "newest" and three times in "widest",
# nine in all, as often as "s" and "t", and it comes first. ("l" and "o" come seven
# times.)</details>

# %%
WORDS = {"low": 5, "lower": 2, "newest": 6, "widest": 3}


def learn(words, merges):
    """The merges that byte-pair encoding learns from words and how often they come."""
    pieces = {word: list(word) for word in words}
    learned = []
    for _ in range(merges):
        counts = Counter()
        for word, parts in pieces.items():
            for pair in pairwise(parts):
                counts[pair] += words[word]
        left, right = counts.most_common(1)[0][0]
        learned.append(left + right)
        for word, parts in pieces.items():
            text = "\0".join(parts).replace(f"{left}\0{right}", left + right)
            pieces[word] = text.split("\0")
    return learned, pieces


learned, pieces = learn(WORDS, 6)
print("learned, in this order:", learned)
print(pieces)

# %% [markdown]
# "newest" and "widest" now share their end. That is all: a vocabulary is the letters and what was
# learned, and a text is cut by the same merges in the same order. Real tokenizers work on bytes,
# so that every text can be written, learn tens of thousands of merges, and keep the space with the
# word after it, which is why tokens in this course look like `' capital'`.
#
# ## 0.3 Why attention
#
# A model has one vector of numbers for each token id. But the same token means different things:
# *bank* after *river*, *bank* after *money*. So each token has to take up something of the others.
# The simplest way is an average of all rows so far. It treats them all alike, and the more there
# are the less each counts:

# %%
tokens = np.arange(1, 65)
share = {"an average of all": 1 / tokens}
for score in (2.0, 5.0):
    share[f"softmax, one score higher by {score:g}"] = np.exp(score) / (np.exp(score) + tokens - 1)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(9, 4.4))
for number, (label, values) in enumerate(share.items()):
    axes.plot(tokens, 100 * values, label=label, color=COLOURS[number], linewidth=2.5)
axes.set_xlabel("tokens so far")
axes.set_ylabel("weight of the token that matters (%)")
axes.set_title("Averages forget, weighted ones need not", loc="left")
axes.grid(alpha=0.3)
axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1))
plt.show()

# %% [markdown]
# **Attention** lets each token choose: it gives every earlier token a *score*, softmax makes
# weights of the scores (all positive, together 1), and it takes the weighted average. The scores
# are dot products of what the reader asks for, its *query*, and what each token can be found by,
# its *key*; what is averaged are *values*. Chapter 1 writes it in NumPy. A decoder also must not
# look ahead, or it could not be trained to guess what comes next: a token sees itself and what is
# before it.
#
# To write a text token by token, the keys and values of all earlier tokens are needed at every
# step. Keeping them is the *KV cache*, and whether it is needed is what this course is about.
#
# ## 0.4 Is this machine like the others?
#
# The course compares bits. So before it begins, let your machine compute 64 digits that have to be
# the same everywhere: of a small model with given weights, in the arithmetic of chapter 3. (`minikv
# doctor` does this and looks at everything else.)


# %%
def in_pieces(name):
    model = minikv.random_model(minikv.tiny_config(), seed=0, arithmetic=name)
    in_one, in_two = (fingerprint(model, range(1, 33), chunks) for chunks in (32, 16))
    same = "the same" if in_one == in_two else "other"
    print(f"{name}, the text in one piece and in two: {same} digits")
    return model


model = in_pieces("exact")

# %% tags=["varies"]
_ = in_pieces("float32")

# %% [markdown]
# The second line may differ on another machine. The first may not; exercise 0.3 asks for its
# digits.
#
# ## What to take along
#
# * A text is a list of token ids; a vocabulary is learned by merging the commonest pairs.
# * Attention is a weighted average of earlier rows, with weights that the rows themselves choose.
# * Every machine that this course runs on gives the same 64 digits.
#
# ## References
#
# * Sennrich, Haddow and Birch 2016, *Neural Machine Translation of Rare Words with Subword Units*,
#   [arXiv 1508.07909](https://arxiv.org/abs/1508.07909): byte-pair encoding.
# * Vaswani et al. 2017, *Attention Is All You Need*, [arXiv
#   1706.03762](https://arxiv.org/abs/1706.03762): attention, and the transformer.
# * Words: the [glossary](../docs/glossary.md).
#
# ## Exercises
#
# Replace the body of each function, and run the cell: the check says what is wrong, as often as
# you like.
#
# ### Exercise 0.1: the commonest pair (one star, 5 minutes)
#
# Given a list of pieces, at least two, return the pair of neighbours `(left, right)` that comes
# most often; of equals, the one that comes first in the list.
#
# <details><summary>Hint</summary><code>Counter(pairwise(pieces))</code> counts pairs, and
# remembers their order.</details>


# %%
def commonest(pieces):
    return ("", "")


_ = e00.check_commonest(commonest)

# %% [markdown]
# ### Exercise 0.2: a weighted average (one star, 5 minutes)
#
# Given weights (T,), none negative and not all 0, and rows (T, D), return their average (D,): the
# weights are first made to add up to 1.
#
# <details><summary>Hint</summary><code>weights @ rows</code> is the weighted sum.</details>


# %%
def average(weights, rows):
    return rows.mean(axis=0)


_ = e00.check_average(average)

# %% [markdown]
# ### Exercise 0.3: your machine (one star, 5 minutes)
#
# Give the 64 digits of the model of the last section, in exact arithmetic, as a text.
#
# <details><summary>Hint</summary><code>fingerprint(model, range(1, 33))</code>, with the model of
# the last section.</details>

# %%
digits = ""
_ = e00.check_machine(digits)

# %% [markdown]
# ### Exercise 0.4: merge it (two stars, 10 minutes)
#
# Given pieces and a pair, return the pieces with the pair glued together wherever it comes, from
# the left. `["a", "a", "a"]` with `("a", "a")` becomes `["aa", "a"]`.
#
# <details><summary>Hint</summary>Walk through the list with a <code>while</code> loop: where the
# next two pieces are the pair, take both, otherwise one.</details>


# %%
def merged(pieces, pair):
    return pieces


_ = e00.check_merged(merged)

# %% [markdown]
# <details><summary>Solutions</summary>
#
# In [solutions/s00.py](solutions/s00.py).
#
# </details>

# %% [markdown]
# *Next*: [1. A decoder from its first matrix product](01_decoder.ipynb).
