"""Ctrl-C, and readers that leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

# The toy model, but a token takes 50 ms, so that there is time to interrupt it.
SLOW = """
import sys, time
import minikv.generation as generation
from minikv.cli import main
fast = generation.sampler
def slow(*args, **settings):
    choose = fast(*args, **settings)
    return lambda *logits: (time.sleep(0.05), choose(*logits))[1]
generation.sampler = slow
sys.exit(main(sys.argv[1:]))
"""


def spawn(
    *argv: object,
    program: str = "from minikv.cli import main; import sys; sys.exit(main())",
):
    # A shell starts background jobs with SIGINT ignored, which children inherit; undo that.
    restore = None if os.name == "nt" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, *map(str, argv)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=restore,
    )


def interrupt(*argv: object, say: bytes = b"", then: bytes = b"") -> tuple[int, bytes, str]:
    """Start a slow command, wait for its first output, press Ctrl-C, then say more."""
    process = spawn(*argv)
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
    process = spawn("generate", "Hello", "--model", tiny, "--max-new-tokens", 200)
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
