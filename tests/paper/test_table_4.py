"""Table 4's claims refuse to be reproduced when a bit differs."""

from __future__ import annotations

import pytest

import minikv
from minikv.experiments.plots import new_figure
from minikv.paper.claim import Setting, Verdict
from minikv.paper.claims import table_4_hellaswag as hellaswag
from minikv.paper.claims import table_4_perplexity as perplexity


@pytest.fixture(scope="module")
def setting(tiny):
    """A short run on the toy model, which reads our texts byte by byte."""
    return Setting(True, (str(tiny),), minikv.load)


def test_every_logit_has_the_bits_of_a_pass_without_a_cache(tiny, setting):
    model = minikv.load(tiny, "exact")
    ids = model.tokenizer.encode("A text of some forty bytes for the toy model")
    told = perplexity.same_bits(model, ids, setting)
    assert told == {
        "rows": len(ids),
        "full": True,
        "residual:every@32": True,
        "residual:embedding@32": True,
        "none": True,
    }


def test_float32_need_not_have_them(tiny, setting):
    """The control: sums taken in another order for one row than for many."""
    model = minikv.random_model(
        minikv.tiny_config(hidden_size=96, num_hidden_layers=4), seed=0, arithmetic="float32"
    )
    told = perplexity.same_bits(model, [n % 97 for n in range(60)], setting)
    assert not all(told.values())


def test_the_verdict_follows_the_bits_and_the_nearest_reading_is_named(setting, monkeypatch):
    monkeypatch.setattr(perplexity, "of_the_paper", lambda config: "smollm2-135m")
    finding = perplexity.run(setting)
    assert finding.verdict is Verdict.ONE_READING
    changed = {**finding.figures, "bits": {**finding.figures["bits"], "none": False}}
    assert perplexity.told_of(changed).verdict is Verdict.REFUTED
    rows = [
        {**row, "times_full": row["paper_times_full"]}
        if row["reading"] == "cut into pieces"
        else row
        for row in finding.figures["windows"]
    ]
    told = perplexity.told_of({**finding.figures, "windows": rows}).reason
    assert "in this order: 'cut into pieces' 1.00, " in told


def test_the_papers_figures_stand_beside_its_own_models_alone(setting):
    finding = perplexity.run(setting)
    theirs = [index for index, name in enumerate(finding.columns) if name.startswith("paper")]
    assert {row[index] for row in finding.rows[1:] for index in theirs} == {None}
    assert finding.rows[0][theirs[0]] is None
    assert "Of this model the paper has no figures with a window" in finding.reason
    figure = new_figure()
    perplexity.plot(figure, finding.figures)
    labels = {line.get_label() for line in figure.axes[0].lines}
    assert labels == set(perplexity.READINGS)


def test_endings_have_the_full_caches_bits_but_for_a_window_that_they_outgrow(setting):
    finding = hellaswag.run(setting)
    count = finding.figures["rows"][0]["questions"]
    assert finding.figures["paper"] is None
    assert finding.figures["bits"]["none"] == finding.figures["bits"]["residual:every@8"] == count
    assert finding.figures["bits"]["window@8"] == 0
    # The toy model's tokens are bytes: its contexts outgrow a window of 64 too.
    assert finding.figures["shortest_context"] > 64
    assert finding.figures["bits"]["window@64"] == 0
    assert finding.verdict is Verdict.REFUTED
