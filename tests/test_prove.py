"""minikv prove: what it prints and writes, and that it notices what does not hold."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import make_fixtures
import numpy as np
import pytest

import minikv
from minikv.cli import main
from minikv.verify import CLAIMS, THEOREMS, Case, Refuted, dataflow, random_case
from minikv.verify.certificate import certify
from minikv.verify.run import conclusion, prove
from minikv.weights import save_folder

VOID = {"meta", "circle", "path", "br"}


class Balanced(HTMLParser):
    """Every tag that is opened is closed; nothing is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        assert not {"src", "xlink:href"} & dict(attrs).keys()
        assert dict(attrs).get("href", "#").startswith("#")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def replaced(monkeypatch, id: str, **changes) -> None:
    monkeypatch.setitem(CLAIMS, id, replace(CLAIMS[id], **changes))


def test_everything_holds_and_the_last_line_says_what_was_established(capsys, tmp_path):
    told, page = tmp_path / "r.json", tmp_path / "r.html"
    assert main(["prove", "--quick", "--output", str(told), "--html", str(page)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if "  holds    found    " in line]
    assert [line.split()[0] for line in rows] == list(CLAIMS)
    assert lines[0].endswith("verdict  control  R       E")
    assert [line.endswith("  not run") for line in rows] == [
        bool(c.concrete) for c in CLAIMS.values()
    ]
    assert ["  proved  " in line for line in rows] == [bool(c.abstract) for c in CLAIMS.values()]
    assert lines[-1].startswith("Established on 8 random models and texts (seed 0): T1, T2,")
    assert re.search(
        r"T9 \(an inequality\), T10, T11 \(on \d\), T12 \(up to four ranks, threads of one "
        r"process\), D \(all inputs of the shapes; on trust: ",
        lines[-1],
    )
    assert "Not established: other weights" in lines[-1]

    written = json.loads(told.read_text(encoding="utf-8"))
    assert [result["id"] for result in written["results"]] == list(CLAIMS)
    assert {result["verdict"] for result in written["results"]} == {"holds"}
    assert written["conclusion"] == lines[-1]
    assert written["extracted"] == "not run"

    text = page.read_text(encoding="utf-8")
    parser = Balanced()
    parser.feed(text)
    assert "$" not in text  # every gap is filled
    assert parser.seen.count("section") == len(CLAIMS) + 1
    assert parser.seen.count("svg") == 2
    assert parser.seen.count("circle") > 10
    assert written["facts"]["fingerprint"] in text
    losses = re.findall(r"D_KL = (\S+) nats", text)
    assert float(losses[0]) > 1e-3


@pytest.mark.parametrize(
    ("differ", "code", "said"), [(0, 0, ["same bits", "-"]), (3, 1, ["DIFFERS", "-"])]
)
def test_column_e_says_what_the_extracted_decoder_gave(differ, code, said, capsys, monkeypatch):
    monkeypatch.setattr("minikv.commands.prove.run_extracted", lambda *_: ("first: here", differ))
    assert main(["prove", "--quick", "--only", "T8,T9", "--extracted"]) == code
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if line.startswith("T")]
    assert [line.rpartition("  ")[2] for line in rows] == said
    assert ("first: here" in out) == bool(differ)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--model", "gemma-3-270m"], "minikv fingerprint --extracted --model gemma-3-270m"),
        (["--shape", "gemma-3-4b"], "only --seed, --json and --output go"),
    ],
)
def test_extracted_with_what_contradicts_it_is_refused(argv, said, capsys):
    assert main(["prove", "--extracted", *argv]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1


def test_only_some_theorems_and_what_was_not_run_is_said(capsys):
    assert main(["prove", "--quick", "--only", "t7,T10"]) == 0
    out = capsys.readouterr().out
    assert "(seed 0): T7 (sums permuted, each in one other order), T10, each bit for bit" in out
    assert "Not established: T1 (not run), T2 (not run)" in out
    assert "\nT1 " not in out


@pytest.mark.parametrize(
    "wrong",
    [
        ["--only", "T0"],
        ["--seed", "-1"],
        ["--model", "no-such"],
        ["--shape", "no-such"],
        ["--shape", "qwen3-0.6b", "--only", "T2"],
        ["--shape", "qwen3-0.6b", "--quick"],
        ["--html", "no/such/folder.html"],
        ["--shape", "qwen3-0.6b", "--output", "no/such/folder.json"],
    ],
)
def test_wrong_input_is_one_line(wrong, capsys):
    assert main(["prove", *wrong]) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1
    assert out == ""


def test_a_theorem_that_fails_is_named_with_python_that_reproduces_it(monkeypatch, capsys):
    def order(case: Case) -> None:
        if len(case.ids) > 6:
            THEOREMS["T7"].check(replace(case, arithmetic="float32"))

    replaced(monkeypatch, "T7", check=order)
    assert main(["prove", "--only", "T7,T10"]) == 1
    out = capsys.readouterr().out
    assert "FAILS" in out
    assert "Not established: T1 (not run)" in out
    assert "T7 (FAILS)" in out
    assert "a product, columns permuted" in out
    code = out[out.index("from minikv.config") :].partition("\nT10")[0]
    with pytest.raises(Refuted, match="columns permuted"):
        exec(code, {})


def test_a_fault_that_shows_as_another_error_fails_too(monkeypatch, capsys):
    def check(case: Case) -> None:
        raise IndexError("out of bounds")

    replaced(monkeypatch, "T10", check=check)
    assert main(["prove", "--quick", "--only", "T10"]) == 1
    assert "IndexError: out of bounds" in capsys.readouterr().out


def test_a_theorem_whose_control_finds_nothing_is_vacuous(monkeypatch, capsys):
    replaced(monkeypatch, "T10", control=lambda case: "")
    assert main(["prove", "--quick", "--only", "T10"]) == 1
    assert "T10 (VACUOUS)" in capsys.readouterr().out


def test_the_certificate_fails_where_the_mask_leaks(monkeypatch):
    monkeypatch.setattr(
        dataflow.LabelArithmetic,
        "softmax",
        lambda self, s: dataflow.Labels(
            np.broadcast_to(
                np.bitwise_or.reduce(s.bits, axis=-1, keepdims=True) & ~np.uint64(1 << 63),
                s.shape,
            )
        ),
    )
    result = prove(CLAIMS["D"], [random_case(0)], [random_case(0)])
    assert result.verdict == "FAILS"
    assert "T8" in result.failure


def test_the_control_of_the_certificate_carries_state_past_the_stream():
    certificate = certify(random_case(3).config, [(5,)], smuggle=lambda: lambda name, value: value)
    assert certificate.failures == ()
    assert CLAIMS["D"].control(random_case(0)).startswith("T2: ")


def test_cases_grow_and_come_from_their_seed_alone():
    cases = [random_case(seed, (seed + 1) / 200) for seed in range(200)]
    assert cases == [random_case(seed, (seed + 1) / 200) for seed in range(200)]
    first, last = (sum(len(case.ids) for case in some) for some in (cases[:50], cases[-50:]))
    assert 2 * first < last
    assert len({case.source for case in cases}) == 200
    assert {len(case.chunks) == 1 for case in cases} == {True, False}
    scales = {case.scale for case in cases}
    assert scales == {0.0, 0.01, 1.0, 3.0, 30.0}
    assert all(min(case.chunks) > 0 for case in cases)


def test_a_long_check_tells_how_far_it_is():
    """Under load, T2 of a real model takes minutes."""
    told = []
    case = replace(
        random_case(0), progress=lambda label, done, total=1.0: told.append(done / total)
    )
    THEOREMS["T2"].check(case)
    layers = case.config.num_hidden_layers
    assert told == [layer / layers for layer in range(layers)]


def test_nothing_established_is_said_as_such():
    assert "Established on x: nothing" in conclusion([], "x")


@pytest.mark.parametrize("window", [None, 4])
def test_a_folder_is_proved_whole_and_t11_where_it_has_windows(window, tiny, tmp_path, capsys):
    folder, held = tiny, [id for id in CLAIMS if id != "T11"]
    if window:
        config = replace(
            make_fixtures.CONFIG,
            model_type="qwen3",
            sliding_window=window,
            layer_types=("full_attention", "sliding_attention", "sliding_attention"),
        )
        tensors = minikv.random_tensors(config, 3, scale=2.0)
        folder, held = tmp_path / "windows", list(CLAIMS)
        save_folder(folder, config, tensors, make_fixtures.tokenizer_files())
    assert main(["prove", "--quick", "--model", str(folder)]) == 0
    out = capsys.readouterr().out
    rows = [line.split()[0] for line in out.splitlines() if "  holds    found    " in line]
    assert rows == held
    assert ("it is about sliding windows" in out) == (window is None)


@pytest.mark.weights
def test_on_real_weights(capsys):
    name = "smollm2-135m-instruct"
    assert main(["prove", "--quick", "--model", name, "--only", "T2,T7,D"]) == 0
    out = capsys.readouterr().out
    established = out.split(f"Established on {name} with 1 pair of texts: ")[1]
    held = established.split(". Not established: ")[0]
    for claim in ("T2", "T7 (", "D ("):  # two of them with what their checks run
        assert claim in held


@pytest.mark.parametrize("options", [["--json"], ["--output", "-"]])
def test_json_on_standard_output_stands_there_alone(options, capsys):
    assert main(["prove", "--quick", "--only", "T8", *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [result["id"] for result in told["results"]] == ["T8"]


def test_results_are_written_beside_the_table(capsys, tmp_path):
    told = tmp_path / "told.json"
    assert main(["prove", "--quick", "--only", "T8", "--output", str(told)]) == 0
    assert "T8 " in capsys.readouterr().out
    assert json.loads(told.read_text(encoding="utf-8"))["results"][0]["verdict"] == "holds"
    assert main(["prove", "--only", "T8", "--output", str(tmp_path / "no" / "folder")]) == 2
