"""Ranks that are started here, and what becomes of a run whose ranks fail."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..errors import MinikvError, RankError
from .comm import Comm
from .sockets import Door

KEY_VARIABLE = "MINIKV_RANKS_KEY"
LEAVE_SECONDS = 5.0  # for a rank to end by itself
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@contextmanager
def ending(comm: Comm) -> Iterator[Comm]:
    """Run a block as one of some ranks: where it fails, the others are told why, and fail too."""
    try:
        yield comm
    except RankError:
        raise  # the others know, or say the same
    except KeyboardInterrupt:
        comm.fail(f"rank {comm.rank} was interrupted")
        raise
    except BaseException as error:
        said = str(error)
        if not isinstance(error, MinikvError):
            said = f"{type(error).__name__}: {error}"
        comm.fail(f"rank {comm.rank}: {said}")
        raise
    finally:
        comm.close()


@contextmanager
def local_ranks(size: int) -> Iterator[Comm]:
    """Rank 0 of some processes on this machine; the others are started here, and end with it."""
    key = secrets.token_hex(16)  # so that nobody else on this machine joins
    door = Door("127.0.0.1", 0, key)
    with tempfile.TemporaryFile() as said:
        children = [_child(door.address, key, size, said) for _ in range(size - 1)]

        def look() -> None:
            """Give up where one has ended before it came."""
            for child in children:
                if child.poll() is not None:
                    said.seek(0)
                    words = said.read().decode(errors="replace").split()
                    raise RankError(
                        f"a rank ended with code {child.returncode} before it came: "
                        f"{' '.join(words)[-300:]}"
                    )

        try:
            with ending(door.gather_ranks(size, look)) as comm:
                yield comm
        finally:
            for child in children:
                _end(child)


@contextmanager
def ranks_elsewhere(size: int, host: str, port: int, key: str = "") -> Iterator[Comm]:
    """Rank 0 of some processes that others start, with ``minikv serve-rank HOST:PORT``."""
    with ending(Door(host, port, key).gather_ranks(size)) as comm:
        yield comm


def _child(address: str, key: str, size: int, said: IO[bytes]) -> subprocess.Popen[bytes]:
    """A process that becomes a rank; Ctrl-C does not reach it, since rank 0 tells it."""
    environment = os.environ | {KEY_VARIABLE: key}
    package = str(Path(__file__).parents[2])
    before = environment.get("PYTHONPATH", "")
    environment["PYTHONPATH"] = f"{package}{os.pathsep}{before}" if before else package
    threads = str(max(1, (os.cpu_count() or 1) // size))
    for name in _THREADS:
        environment.setdefault(name, threads)
    return subprocess.Popen(
        [sys.executable, "-m", "minikv", "serve-rank", address],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=said,
        start_new_session=True,
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    """Wait a little for a rank to end, then end it."""
    try:
        child.wait(LEAVE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
