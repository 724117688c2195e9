"""``--ranks``, ``serve-rank`` and mpirun: one answer from several processes, and how they end."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import minikv
from minikv.config import ModelConfig
from minikv.weights import load_tensors

SOON = 10.0  # seconds in which a run of processes has ended; each takes one to start
EXACT = ("--arithmetic", "exact", "--max-new-tokens", 8, "--json")
MINIKV = [sys.executable, "-m", "minikv"]

# Rank 0, whose tokens take 50 ms, so that there is time to interrupt it.
SLOW = """
import sys, time
import minikv.generation as generation
from minikv.cli import main
fast = generation.sampler
def slow(*args, **drawing):
    choose = fast(*args, **drawing)
    return lambda *given: (time.sleep(0.05), choose(*given))[1]
generation.sampler = slow
sys.exit(main(sys.argv[1:]))
"""


def answer(run, *argv: object) -> dict:
    code, out, _ = run("generate", *argv, *EXACT)
    assert code == 0
    return json.loads(out)


def test_two_processes_give_the_answer_of_one(run, tiny):
    alone = answer(run, "Hello there", "--model", tiny)
    split = answer(run, "Hello there", "--model", tiny, "--ranks", 2)
    assert split["ids"] == alone["ids"]
    assert (split["ranks"], split["cache_bytes"]) == (2, alone["cache_bytes"] // 2)
    assert split["wire_bytes"] > 1000


@pytest.mark.slow
def test_processes_draw_the_same_tokens_and_say_what_they_sent(run, tiny):
    argv = ("generate", "Hello", "--model", tiny, "--ranks", 2, "--temperature", 1)
    code, out, err = run(*argv, "--max-new-tokens", 5)
    assert code == 0
    assert out.startswith("Hello")
    assert "[2 ranks; rank 0 sent and received " in err


@pytest.mark.slow
def test_a_batch_of_prompts_on_two_processes_is_that_of_one(run, tiny, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Hello\nOnce upon a time\n", encoding="utf-8")
    argv = ("generate", "--prompts", prompts, "--model", tiny, "--arithmetic", "exact")
    argv += ("--max-new-tokens", 4)
    assert run(*argv, "--ranks", 2)[:2] == run(*argv)[:2]


def test_a_saved_text_goes_on_with_another_number_of_processes(run, tiny, tmp_path):
    policy = ("--model", tiny, "--cache", "residual", "--budget", 3)
    one, two = tmp_path / "one", tmp_path / "two"
    answer(run, "Hello", *policy, "--save-cache", one)
    split = answer(run, " more", *policy, "--load-cache", one, "--ranks", 2, "--save-cache", two)
    alone = answer(run, " more", *policy, "--load-cache", one)
    assert split["ids"] == alone["ids"]
    assert answer(run, "!", *policy, "--load-cache", two)["cache_tokens"] > alone["cache_tokens"]


# Ends


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    told = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in told.split()]


def slow_run(tiny: Path) -> subprocess.Popen:
    """A run of three processes that has begun to answer."""
    argv = ["generate", "Hello", "--model", tiny, "--max-new-tokens", 200, "--ranks", 3]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert os.read(process.stdout.fileno(), 1) == b"H"
    return process


def ended(process: subprocess.Popen, ranks: list[int]) -> tuple[int, str]:
    """How a run ended: soon, and with all of its processes."""
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < SOON
    assert not [rank for rank in ranks if Path(f"/proc/{rank}").exists()]
    return process.returncode, err.decode()


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="looks for processes in /proc, as Linux has it"
)


@needs_proc
def test_a_killed_rank_ends_the_run_in_one_line(tiny):
    process = slow_run(tiny)
    ranks = children(process.pid)
    assert len(ranks) == 2
    os.kill(ranks[0], signal.SIGKILL)
    code, err = ended(process, ranks)
    assert code == 2
    assert "minikv: error: rank " in err
    assert "was lost" in err
    assert "Traceback" not in err


@pytest.mark.slow
@needs_proc
def test_ctrl_c_ends_all_processes(tiny):
    process = slow_run(tiny)
    ranks = children(process.pid)
    process.send_signal(signal.SIGINT)
    code, err = ended(process, ranks)
    assert code == 130
    assert "Traceback" not in err


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def listening(*argv: object) -> tuple[subprocess.Popen, str]:
    """Rank 0 of two, which waits for the other."""
    address = f"127.0.0.1:{free_port()}"
    line = [*MINIKV, "generate", "Hello", *argv, "--ranks", "2", "--listen", address]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([str(word) for word in line], **piped), address


def test_a_rank_that_was_started_elsewhere_takes_part(run, tiny, tmp_path):
    moved = shutil.copytree(tiny, tmp_path / "moved")
    first, address = listening("--model", tiny, *EXACT, "--key", "lecture")
    code, out, err = run("serve-rank", address, "--key", "lecture", "--model", moved, "--json")
    assert code == 0, err
    figures = json.loads(out)
    assert (figures["rank"], figures["ranks"]) == (1, 2)
    assert json.loads(first.communicate(timeout=60)[0])["ids"]


@pytest.mark.slow
def test_a_rank_with_other_weights_ends_both(run, tiny, tmp_path):
    config = ModelConfig.from_folder(tiny)
    tensors = {name: np.array(tensor) for name, tensor in load_tensors(tiny, config).items()}
    tensors["model.norm.weight"][0] += 1
    text = (tiny / "tokenizer.json").read_text(encoding="utf-8")
    other = minikv.weights.save_folder(
        tmp_path / "other", config, tensors, {"tokenizer.json": text}
    )
    first, address = listening("--model", tiny, *EXACT)
    code, _, err = run("serve-rank", address, "--model", other)
    assert code == 2
    assert "rank 1 has weights " in err
    out, said = first.communicate(timeout=60)
    assert (first.returncode, out) == (2, "")
    assert "rank 1 has weights " in said


# Refusals, before any process is started


def test_what_cannot_run_on_so_many_processes_is_refused(refused, tiny):
    heads = ModelConfig.from_folder(tiny).num_attention_heads
    argv = ("generate", "Hello", "--model", tiny)
    assert f"expected 1 to {heads}" in refused(*argv, "--ranks", heads + 1)
    assert "decides by all heads" in refused(*argv, "--ranks", 2, "--cache", "h2o")
    assert "give --ranks N" in refused(*argv, "--listen", "127.0.0.1:1")
    assert "no address" in refused(*argv, "--ranks", 2, "--listen", "nowhere")
    assert "no address" in refused("serve-rank", "nowhere")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = refused(*argv, "--ranks", 2, "--listen", f"127.0.0.1:{port}")
        assert f"cannot listen at 127.0.0.1:{port}" in said


def test_a_rank_to_whom_nobody_answers_says_so(refused, monkeypatch):
    monkeypatch.setattr("minikv.parallel.sockets.JOIN_SECONDS", 0.2)
    assert "nobody answers at" in refused("serve-rank", f"127.0.0.1:{free_port()}")


def test_ranks_that_do_not_come_are_not_waited_for(refused, tiny, monkeypatch):
    monkeypatch.setattr("minikv.parallel.sockets.JOIN_SECONDS", 0.2)
    argv = ("generate", "Hello", "--model", tiny, "--ranks", 2)
    assert "0 of 1 ranks came" in refused(*argv, "--listen", f"127.0.0.1:{free_port()}")


def test_a_rank_that_cannot_start_says_why(refused, tiny, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    said = refused("generate", "Hello", "--model", tiny, "--ranks", 2)
    assert "a rank ended with code 1 before it came" in said


# mpirun

HAS_MPI = importlib.util.find_spec("mpi4py") is not None and shutil.which("mpirun") is not None


def test_mpirun_and_ranks_that_differ_are_refused(refused, tiny, monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    argv = ("generate", "Hello", "--model", tiny)
    assert "mpirun or torchrun started 2 processes" in refused(*argv, "--ranks", 3)
    if importlib.util.find_spec("mpi4py") is None:
        assert "needs the package 'mpi4py'" in refused(*argv)


@pytest.mark.skipif(not HAS_MPI, reason="needs mpi4py and mpirun (extra `mpi`), not installed here")
def test_mpirun_gives_the_answer_of_one_process(run, tiny):
    alone = answer(run, "Hello", "--model", tiny)
    line = ["mpirun", "-n", "2", *MINIKV, "generate", "Hello", "--model", tiny, *EXACT]
    told = subprocess.run([str(word) for word in line], capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["ids"] == alone["ids"]


@pytest.mark.skipif(not HAS_MPI, reason="needs mpi4py and mpirun (extra `mpi`), not installed here")
def test_an_error_under_mpirun_ends_all_with_its_message(tiny):
    line = ["mpirun", "-n", "2", *MINIKV, "generate", "", "--model", tiny, *EXACT]
    told = subprocess.run([str(word) for word in line], capture_output=True, text=True, timeout=120)
    assert told.returncode != 0
    assert "minikv: error:" in told.stderr


@pytest.mark.slow
@pytest.mark.peers
def test_torchrun_gives_the_answer_of_one_process(run, tiny):
    pytest.importorskip("torch", reason="needs torch, not installed here")
    alone = answer(run, "Hello", "--model", tiny)
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    line += ["-m", "minikv", "generate", "Hello", "--model", tiny, *EXACT]
    told = subprocess.run([str(word) for word in line], capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["ids"] == alone["ids"]
