"""``compare``, ``memory``, ``frontier`` and ``latency``: tables, JSON, plots and refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from experiments.toys import FAMILIES

import minikv
from minikv.build import random_tensors
from minikv.cli import main
from minikv.experiments import accounting
from minikv.shapes import SHAPES
from minikv.weights import save_folder

TINY = Path(__file__).parents[1] / "fixtures" / "tiny"


RUNS = {
    "compare": ["--budgets", "4,8", "--new-tokens", "3", "--policies", "residual:every,window,h2o"],
    "memory": ["--turns", "2", "--reply-tokens", "4", "--settings", "full,residual:tokens@8"],
    "frontier": ["--evicted", "8", "--repeats", "1"],
    "latency": ["--batches", "1,2", "--lengths", "4,8", "--repeats", "1"],
}


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("=== a\nThe cat sat.\n=== b\nOn the mat.\n", encoding="utf-8")
    return path


def test_bytes_at_a_shape_are_called_by_the_shape_and_its_type(capsys):
    assert main(["memory", "--shape", "gemma-3-4b", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["shape"], figures["dtype"]) == ("gemma-3-4b", "bfloat16")
    assert not {"model", "arithmetic", "machine"} & set(figures)


@pytest.mark.parametrize("command", RUNS)
def test_a_command_prints_a_table_json_and_a_plot(command, tiny, prompts, tmp_path, capsys):
    argv = [command, "--model", str(tiny), *RUNS[command]]
    if command == "compare":
        argv += ["--prompts", str(prompts)]
    assert main(argv) == 0
    table = capsys.readouterr().out
    assert "NumPy" in table  # the machine
    pytest.importorskip("matplotlib", reason="plots need the extra `plots`")
    plot = tmp_path / "plot.png"
    assert main([*argv, "--json", "--plot", str(plot)]) == 0
    printed = capsys.readouterr()
    rows = json.loads(printed.out)["rows"]
    assert set(rows[0]) <= set(table.split())  # the table's columns are the rows' keys
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert printed.err == f"wrote {plot}\n"


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory) -> Path:
    """A random model of each family, with the committed toy's tokenizer."""
    given = json.loads((TINY / "config.json").read_text(encoding="utf-8"))
    config = minikv.tiny_config(
        vocab_size=given["vocab_size"],
        num_hidden_layers=3,
        model_type=request.param,
        max_position_embeddings=512,
        **FAMILIES[request.param],
    )
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    files = {
        name: (TINY / name).read_text(encoding="utf-8") for name in names if (TINY / name).exists()
    }
    path = tmp_path_factory.mktemp("family") / request.param
    return save_folder(path, config, random_tensors(config, 0), files)


@pytest.mark.parametrize("command", RUNS)
def test_a_command_runs_on_every_family(command, folder, prompts, capsys):
    argv = [command, "--model", str(folder), *RUNS[command], "--json"]
    assert main(argv + ["--prompts", str(prompts)] * (command == "compare")) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) >= 2
    if command == "compare":  # exact, so that windows lose nothing that residuals bring back
        assert all(row["bits_equal"] for row in rows if row["policy"].startswith("residual"))


def test_inspect_shows_what_the_family_does_and_what_windows_bound(folder, capsys):
    assert main(["inspect", str(folder)]) == 0
    out = capsys.readouterr().out
    config = minikv.ModelConfig.from_file(folder / "config.json")
    for name, value in vars(config.family).items():
        assert re.search(rf"^{name} +{value}$", out, re.MULTILINE), name
    assert ("of sliding layers" in out) == config.slides
    assert main(["inspect", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["family"] == vars(config.family)
    assert told["parameters"] == sum(tensor["parameters"] for tensor in told["tensors"])


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_need_no_model(name, capsys):
    assert main(["memory", "--shape", name, "--model", "nowhere"]) == 0
    out = capsys.readouterr().out
    assert f"{accounting.shape_bytes(name, 'K/V'):,} bytes" in out
    assert ("need" in out) == name.startswith("gemma")  # what sliding layers need


@pytest.mark.parametrize(
    "argv",
    [
        ["compare", "--budgets", "0"],
        ["compare", "--budgets", "4,x"],
        ["compare", "--policies", "lru"],
        ["compare", "--policies", "streaming_llm", "--budgets", "4"],
        ["compare", "--prompts", "missing.txt"],
        ["compare", "--plot", "picture.txt"],
        ["memory", "--shape", "gpt-5"],
        ["memory", "--turns", "21"],
        ["memory", "--budgets", "8"],
        ["memory", "--shape", "gemma-3-4b", "--settings", "full"],
        ["memory", "--settings", "window@-1"],
        ["frontier", "--evicted", "100000"],
        ["latency", "--plot", "no/such/folder.png"],
        ["latency", "--batches", "9000"],
    ],
)
def test_wrong_input_is_refused_in_one_line(argv, tiny, capsys):
    if "--plot" in argv:
        pytest.importorskip("matplotlib", reason="plots need the extra `plots`")
    assert main([*argv, "--model", str(tiny)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("minikv: error: ")
    assert err.count("\n") == 1
