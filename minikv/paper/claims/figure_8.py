"""Patching one prompt's stream into another, at every layer: all rows, and the last one alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...arrays import Array, to_numpy
from ...caches import Cache
from ...decoder import forward
from ...errors import InputError
from ...experiments.plots import labelled
from ...layers import Hook
from ...model import Model
from ...patching import kl_divergence, run_with_cache
from ..claim import Claim, Figures, Finding, Setting, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DONOR = "What is the capital of Australia?"
RECIPIENT = "What language is spoken in France?"
ANSWER = "Canberra"
ANSWER_TOKENS = 16


def replacing(layer: int, stream: Array, rows: Sequence[int]) -> Hook:
    """A hook that puts rows of another text's stream, ``(T, D)``, before block `layer`."""

    def hook(name: str, value: Array) -> Array:
        if name != f"blocks.{layer}.hook_resid_pre" or value.shape != stream.shape:
            return value
        patched = value.copy()
        patched[rows] = stream[rows]
        return patched

    return hook


class Exchange:
    """Two prompts of one length: what the first gives, and what the second gives when patched.

    Parameters
    ----------
    model : Model
    donor, recipient : sequence of int
        Token ids.

    Raises
    ------
    InputError
        If their lengths differ.
    """

    def __init__(self, model: Model, donor: Sequence[int], recipient: Sequence[int]) -> None:
        if len(donor) != len(recipient):
            raise InputError(
                f"the donor has {len(donor)} tokens and the recipient {len(recipient)}: patching "
                "all rows needs as many of one as of the other"
            )
        self.model = model
        self.donor = donor
        self.recipient = recipient
        logits, activations = run_with_cache(model.weights, donor)
        self.donor_logits = to_numpy(logits)[-1]
        self.streams = [
            activations[f"blocks.{layer.index}.hook_resid_pre"] for layer in model.layers
        ]
        self.every_row = range(len(donor))
        self.last_row = [len(donor) - 1]

    def patched(self, layer: int, rows: Sequence[int], cache: Cache | None = None) -> np.ndarray:
        """The recipient's last logits, ``(V,)``, with rows of the donor's stream at a layer."""
        hook = replacing(layer, self.streams[layer], rows)
        out = forward(self.model.weights, [self.recipient], [cache], hook=hook)
        return to_numpy(out)[0]

    def divergence(self, logits: np.ndarray) -> float:
        """D_KL(donor || patched) of the next token, in nats."""
        return float(kl_divergence(self.donor_logits, logits))

    def answer(self, layer: int, rows: Sequence[int]) -> str:
        """What the recipient answers, patched while the prompt is read, greedily from a cache."""
        cache = self.model.new_cache()
        first = int(self.patched(layer, rows, cache).argmax())
        stop = self.model.config.eos_token_id
        ids = [first]
        if first not in stop:
            ids += self.model.generate([first], ANSWER_TOKENS - 1, cache)
        return decoded(self.model, ids)


def decoded(model: Model, ids: Sequence[int]) -> str:
    """A model's text without what only ends it."""
    assert model.tokenizer is not None
    return model.tokenizer.decode(ids).strip()


def asked(model: Model, question: str) -> list[int]:
    """A question in the model's chat template, with the answer to follow."""
    assert model.tokenizer is not None
    text = model.tokenizer.apply_chat_template([{"role": "user", "content": question}], True)
    return model.tokenizer.encode(text, add_special=False)


def run(setting: Setting) -> Finding:
    """Patch at every layer, or shortly at some."""
    model = setting.model(setting.names[0], "exact")
    every = range(model.config.num_hidden_layers)
    layers = setting.choose(every, every[:: max(1, len(every) // 3)])
    spoken = Exchange(model, asked(model, DONOR), asked(model, RECIPIENT))
    figures: dict[str, Any] = {
        "layers": list(layers),
        "bits_equal": [],
        "all_rows": [],
        "last_row": [],
        "answers": [],
        "answers_last_row": [],
        "donor": decoded(model, list(model.generate(spoken.donor, ANSWER_TOKENS))),
        "recipient": decoded(model, list(model.generate(spoken.recipient, ANSWER_TOKENS))),
        "heat": heat(setting, model, layers),
    }
    for done, layer in enumerate(layers, start=1):
        patched = spoken.patched(layer, spoken.every_row)
        alone = spoken.patched(layer, spoken.last_row)
        figures["bits_equal"].append(patched.tobytes() == spoken.donor_logits.tobytes())
        figures["all_rows"].append(spoken.divergence(patched))
        figures["last_row"].append(spoken.divergence(alone))
        figures["answers"].append(spoken.answer(layer, spoken.every_row))
        figures["answers_last_row"].append(spoken.answer(layer, spoken.last_row))
        setting.progress("patching", done, len(layers))
    return told_of(figures)


def heat(setting: Setting, model: Model, layers: Sequence[int]) -> dict[str, object]:
    """The bare questions: D_KL(donor || patched) by row alone and layer, and by all rows."""
    assert model.tokenizer is not None
    bare = Exchange(model, model.tokenizer.encode(DONOR), model.tokenizer.encode(RECIPIENT))
    choices = {f"{row}": [row] for row in setting.choose(bare.every_row, bare.last_row)}
    choices["all"] = list(bare.every_row)
    words = [
        f"{model.tokenizer.decode([old])!r} <- {model.tokenizer.decode([new])!r}"
        for old, new in zip(bare.recipient, bare.donor, strict=True)
    ]
    cells = {
        name: [bare.divergence(bare.patched(layer, rows)) for layer in layers]
        for name, rows in choices.items()
    }
    return {"words": words, "cells": cells}


def told(figures: Figures) -> tuple[Verdict, str]:
    """At how many layers the donor's bits come out, and at which its answer."""
    layers = figures["layers"]
    equal = sum(figures["bits_equal"])
    named = [
        layer for layer, told in zip(layers, figures["answers"], strict=True) if ANSWER in told
    ]
    off = sum(kl > 0 for kl in figures["last_row"])
    verdict = Verdict.REFUTED
    if equal == len(layers) and not any(figures["all_rows"]):
        verdict = Verdict.REPRODUCED if len(named) == equal else Verdict.ONE_READING
    return verdict, (
        "With all rows patched the next token's distribution is the donor's at "
        f"{equal} of {len(layers)} layers, in every bit of every logit (T2); with the last row "
        f"alone D_KL is above 0 at {off} of them. The whole answer is more than the next token: it "
        f"names {ANSWER} at layers {_listed(named)} alone. Patched at block l, the blocks before "
        "it keep the recipient's keys and values, which later tokens read: the next logits are the "
        "donor's too if l is 0, and not above it."
    )


def told_of(figures: Figures) -> Finding:
    """The verdict and the table."""
    columns = (
        "layer",
        "paper: D_KL (nats), all rows",
        "ours: D_KL, all rows",
        "every bit of every logit",
        f"answer, all rows (the paper's: {ANSWER})",
        "D_KL, last row alone",
        "answer, last row alone",
    )
    layers = figures["layers"]
    rows = zip(
        layers,
        [0.0] * len(layers),
        figures["all_rows"],
        figures["bits_equal"],
        figures["answers"],
        figures["last_row"],
        figures["answers_last_row"],
        strict=True,
    )
    return Finding(*told(figures), columns, tuple(rows), figures)


def _listed(layers: Sequence[int]) -> str:
    """Numbers with commas, or that there are none."""
    return ", ".join(map(str, layers)) or "none"


def plot(figure: Figure, figures: Figures) -> None:
    """The heat map: a row of the stream, or all of them, against the layer."""
    cells = figures["heat"]["cells"]
    words = figures["heat"]["words"]
    labels = [words[int(name)] if name.isdecimal() else "all rows" for name in cells]
    axes = labelled(
        figure.subplots(),
        "layer at which the recipient's stream is replaced by the donor's",
        "row that is replaced",
        "D_KL(donor || patched) of the next token",
    )
    layers = figures["layers"]
    axes.set_xticks(range(0, len(layers), 3), [f"{layer}" for layer in layers[::3]])
    image = axes.imshow(list(cells.values()), aspect="auto", cmap="viridis", origin="upper")
    axes.set_yticks(range(len(labels)), labels)
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label("D_KL (nats)", fontsize=15)
    bar.ax.tick_params(labelsize=13)


CLAIM = Claim(
    id="figure-8",
    where="Figure 8",
    title="A stream patched into another prompt carries the whole state",
    says=(
        f'the residual stream of "{DONOR}" put into "{RECIPIENT}" at any one layer gives the '
        "donor's next-token distribution: D_KL = 0.0 at each of SmolLM2's 30 layers and of "
        f'Qwen2.5-0.5B\'s 24, and the answer "{ANSWER}".'
    ),
    protocol=(
        "both questions in the model's chat template, patched while they are read, all rows or the "
        f"last alone; exact arithmetic; up to {ANSWER_TOKENS} tokens of answer, greedily from the "
        "cache. The heat map is of the bare questions, each row alone. The paper does not say "
        "whether it uses the template. Without it the model ends the text at once."
    ),
    models=("smollm2-135m-instruct",),
    run=run,
    told=told,
    plot=plot,
    exact=("bits_equal", "all_rows", "answers"),
)
