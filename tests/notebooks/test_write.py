"""What a student writes inside the chapters: solutions pass, mistakes are explained, both read on.

The chapters' own folded solutions and, in their place, what the library has are held to the same
checks. A student who fills in chapter 1 has a decoder with the library's bits.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import linecache
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jupytext", reason="needs the extra `notebooks`")
pytest.importorskip("hypothesis", reason="needs the extra `notebooks`")

import exercises
import jupytext
from exercises import e01, e02, e03, e04, e05, e06, e07, library

import minikv
from minikv.build import random_tensors

HERE = Path(exercises.__file__).parents[1]
HEADING = re.compile(r"^### Write \d\.\d: .*\((one|two|three) stars?, \d+ minutes\)$", re.MULTILINE)
NUMBERS = ("01", "02", "03", "04", "05", "06", "07")


@cache
def cells(number: str) -> list:
    """The cells of a chapter."""
    (path,) = HERE.glob(f"{number}_*.py")
    return jupytext.read(path).cells


@cache
def written(number: str) -> dict:
    """What the chapter defines when its solutions are taken, without what needs weights."""
    space: dict = {"unless_solved": exercises.unless_solved, "np": np, "minikv": minikv}
    for cell in cells(number):
        if cell.cell_type != "code":
            continue
        for node in ast.parse(cell.source).body:
            kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
            if isinstance(node, kept):
                module = ast.Module([node], [])
                with contextlib.suppress(NameError):  # a default argument is a model
                    exec(compile(module, number, "exec"), space)
    return space


def tasks() -> list[tuple[str, str]]:
    """Chapter and name of each function to write."""
    found = []
    for number in NUMBERS:
        for cell in cells(number):
            if "solution" in cell.metadata.get("tags", []):
                found.append((number, ast.parse(cell.source).body[0].name))
    return found


def check_of(number: str, name: str):
    check = getattr(importlib.import_module(f"exercises.e{number}"), f"check_{name}")
    return (lambda f: check(f, written("01")["prepare"])) if name == "decoder" else check


TASKS = tasks()


def test_chapter_1_asks_for_six_functions_and_the_next_six_for_two_each():
    counts = [sum(number == each for number, _ in TASKS) for each in NUMBERS]
    assert counts == [6, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(("number", "name"), TASKS)
def test_the_chapter_has_stub_check_hint_and_solution(number, name):
    chapter = cells(number)
    codes = [at for at, cell in enumerate(chapter) if f"def {name}(" in cell.source]
    stub, solution = codes[:2]
    assert f"check_{name}({name}" in chapter[stub].source
    assert solution == stub + 1
    assert chapter[solution].source.startswith(f"@unless_solved({name})\n")
    asked = chapter[stub - 1].source
    assert HEADING.search(asked)
    assert "<details><summary>Hint</summary>" in asked


@pytest.mark.parametrize(("number", "name"), TASKS)
def test_the_solution_is_accepted(number, name, capsys):
    assert check_of(number, name)(written(number)[name]), capsys.readouterr().out


@pytest.mark.parametrize(("number", "name"), TASKS)
def test_the_librarys_own_way_is_accepted(number, name, capsys):
    assert check_of(number, name)(library.INSTEAD[name]), capsys.readouterr().out


@pytest.mark.parametrize(("number", "name"), TASKS)
def test_what_is_not_written_is_told_so(number, name, capsys):
    assert not check_of(number, name)(lambda *given: None)
    assert "returned None" in capsys.readouterr().out


def test_a_function_that_is_accepted_takes_the_place_of_the_chapters(capsys):
    mine, ours = written("02")["cosine"], lambda x, y: 0
    wrong = lambda x, y: np.sum(x * y, axis=-1)  # noqa: E731 (a function without a check)
    assert exercises.unless_solved(wrong)(ours) is ours
    assert e02.check_cosine(mine)
    assert exercises.unless_solved(mine)(ours) is mine
    assert exercises.instead(mine) is mine


def test_six_functions_make_a_decoder_with_the_librarys_bits():
    own = written("01")
    config = minikv.tiny_config(num_hidden_layers=4, tie_word_embeddings=True)
    exact = minikv.arithmetic.get_arithmetic("exact", 128)
    ids = [5, 3, 8, 8, 1]
    w = own["prepare"](random_tensors(config, 7), exact)
    got = own["decoder"](w, ids, config, exact)
    expected = minikv.random_model(config, 7, "exact").logits(ids)
    assert np.array_equal(got.view(np.uint32), expected.view(np.uint32))
    swapped = own["decoder"](w, ids[::-1], config, exact)
    assert not np.array_equal(got.view(np.uint32), swapped.view(np.uint32))


def solved(number, name):
    return written(number)[name]


def never_widened(x, gain, eps, sums):
    root = np.sqrt(sums.mean_square(x) + eps)
    return x / root.astype(np.float32) * gain.astype(np.float32)


def without_mask(q, k, v, sums):
    share, outputs = q.shape[1] // k.shape[1], []
    for head in range(q.shape[1]):
        scores = sums.scores(q[:, [head]], k[:, [head // share]], 1 / np.sqrt(q.shape[2]))
        outputs.append(sums.weighted_sum(sums.softmax(scores), v[:, [head // share]]))
    return np.concatenate(outputs, axis=1)


def in_turn(q, k, v, sums):
    order = [head % k.shape[1] for head in range(q.shape[1])]
    return solved("01", "attention")(q, k[:, order], v[:, order], sums)


def unscaled(q, k, v, sums):
    return solved("01", "attention")(q * np.float32(np.sqrt(q.shape[2])), k, v, sums)


def scaled_twice(q, k, v, sums):
    return solved("01", "attention")(q / np.float32(np.sqrt(q.shape[2])), k, v, sums)


def hidden_by_zero(q, k, v, sums):
    share, outputs = q.shape[1] // k.shape[1], []
    sees = np.tril(np.ones((len(q), len(q)), dtype=bool))
    for head in range(q.shape[1]):
        scores = sums.scores(q[:, [head]], k[:, [head // share]], 1 / np.sqrt(q.shape[2]))
        weights = sums.softmax(np.where(sees, scores, 0.0))
        outputs.append(sums.weighted_sum(weights, v[:, [head // share]]))
    return np.concatenate(outputs, axis=1)


def own_exponential(gate, up, sums):
    wide = gate.astype(np.float64)
    return (wide / (np.exp(-wide) + 1.0) * up).astype(np.float32)


def rope_in_place(x, cos, sin):
    half = x.shape[-1] // 2
    x[..., :half] = x[..., :half] * cos - x[..., half:] * sin
    x[..., half:] = x[..., half:] * cos + x[..., :half] * sin
    return x


def without_last_norm(w, ids, config, sums):
    x = w["embedding"][ids]
    for index in range(config.num_hidden_layers):
        x = written("01")["block"](x, *written("01")["block_halves"](w, index, config, sums))
    return sums.linear(x, w["embed_tokens"])


def in_place(resid_pre, attend, mlp):
    resid_pre += attend(resid_pre)
    return resid_pre + mlp(resid_pre)


def woven(x, cos, sin):
    out = np.empty_like(x)
    a, b = x[..., 0::2].astype(np.float64), x[..., 1::2].astype(np.float64)
    out[..., 0::2], out[..., 1::2] = a * cos - b * sin, b * cos + a * sin
    return out


def overwriting(value, rows, donor):
    value[rows] = donor
    return value


MISTAKES = [
    (e01.check_rms_norm, lambda x, g, e, s: solved("01", "rms_norm")(x, 1.0, e, s), "the gain"),
    (e01.check_rms_norm, lambda x, g, e, s: solved("01", "rms_norm")(x, g, 0.0, s), "epsilon"),
    (e01.check_rms_norm, never_widened, "last bits"),
    (e01.check_rms_norm, lambda x, g, e, s: np.float64(never_widened(x, g, e, s)), "narrow"),
    (e01.check_rope, lambda x, c, s: solved("01", "rope")(x, c, -s), "turns the other way"),
    (e01.check_rope, woven, "pair i is i and i + d/2"),
    (e01.check_rope, rope_in_place, "changed in place"),
    (e01.check_rope, lambda x, c, s: x, "as they were given"),
    (e01.check_attention, without_mask, "causal mask"),
    (e01.check_attention, in_turn, "neighbours share one"),
    (e01.check_attention, unscaled, "sqrt(d)"),
    (e01.check_attention, scaled_twice, "divided by d"),
    (e01.check_attention, hidden_by_zero, "needs -inf"),
    (e01.check_gated, lambda g, u, s: solved("01", "gated")(g, 1 + 0 * u, s), "up is missing"),
    (e01.check_gated, lambda g, u, s: solved("01", "gated")(u, g, s), "changed places"),
    (e01.check_gated, lambda g, u, s: np.maximum(g, 0) * u, "ReLU"),
    (e01.check_gated, own_exponential, "not that of sums"),
    (e01.check_block, lambda x, a, m: x + a(x) + m(x), "as it was before attention"),
    (e01.check_block, lambda x, a, m: m(a(x)), "the stream itself must stay"),
    (e01.check_block, in_place, "changed in place"),
    (e01.check_block, lambda x, a, m: (x + a(x)) + m(x + a(x)), "called twice"),
    (e01.check_rope, lambda x, c, s: np.float64(woven(x, c, s)), "pair i is i and i + d/2"),
    (e02.check_cosine, lambda x, y: np.sum(x * y, axis=-1), "the dot product"),
    (e02.check_cosine, lambda x, y: np.sum(x * y) / np.sqrt(np.sum(x * x)), "shape"),
    (
        e02.check_values,
        lambda rows, layer: minikv.kv_from_residual(rows, np.arange(len(rows)), layer)[0],
        "other bits",
    ),
    (
        e02.check_values,
        lambda x, layer: layer.heads(layer.linear(x, layer.v_proj)),
        "not normalized",
    ),
    (e03.check_round_to, lambda x, g: x, "comes back as it is"),
    (e03.check_round_to, lambda x, g: np.floor(x / g) * g, "another multiple is nearer"),
    (e03.check_on_grids, lambda x, m, a, b: x @ m.T, "nothing has been rounded"),
    (
        e03.check_on_grids,
        lambda x, m, a, b: np.rint(x / a) @ np.rint(m / b).T,
        "counts of grid steps",
    ),
    (e04.check_patched_rows, overwriting, "copy it"),
    (e04.check_patched_rows, lambda v, r, d: v, "expected the donor's"),
    (e04.check_replay, lambda m, s, at: m.logits([0] * len(s)), "not those of the whole run"),
    (
        e04.check_replay,
        lambda m, s, at: minikv.decoder.unembed(m.weights, s),
        "no block has run",
    ),
    (
        e05.check_without_cache,
        lambda m, ids, start: m.logits(ids)[start - 1 : -1],
        "the last row is missing",
    ),
    (e05.check_token_bytes, lambda c, s: (c.kv_bytes_per_token("float32") // 2, 0), "K *and* V"),
    (e06.check_gathered, lambda p, g: p.mean(axis=1)[:g].T, "is handed out"),
    (
        e06.check_gathered,
        lambda p, g: p.reshape(-1, g, *p.shape[1:]).sum(axis=(0, 2)).T,
        "neighbouring query heads",
    ),
    (e06.check_renormalised, lambda w, keep: np.where(keep, w, 0.0), "add up to"),
    (e07.check_value_residual, lambda memory: lambda name, value: value, "not kept"),
    (
        e07.check_carried,
        lambda m, h0: minikv.kv_from_residual(h0, np.arange(len(h0)), m.layers[1])[1],
        "which layer",
    ),
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("check", "mistake", "words"), MISTAKES)
def test_a_mistake_is_explained(check, mistake, words, capsys):
    assert not check(mistake)
    told = capsys.readouterr().out
    assert told.startswith("Not yet: ")
    assert words in told, told


def test_the_last_norm_is_missed(capsys):
    assert not e01.check_decoder(without_last_norm, written("01")["prepare"])
    assert "last norm is missing" in capsys.readouterr().out


def test_a_crash_shows_the_students_line(capsys):
    source = "def cosine(x, y):\n    scale = 2\n    return x @ missing_name\n"
    space: dict = {}
    linecache.cache["<cell>"] = (len(source), None, source.splitlines(True), "<cell>")
    exec(compile(source, "<cell>", "exec"), space)
    assert not e02.check_cosine(space["cosine"])
    told = capsys.readouterr().out
    assert "NameError: name 'missing_name' is not defined" in told
    assert "in line 3 of the cell: return x @ missing_name" in told
