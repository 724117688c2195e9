"""Two network namespaces joined by a cable: what goes over it, and what if it is pulled.

They need Linux, its ``ip`` and root; only with ``-m slow``. Shared memory cannot stand in for the
cable, since its bytes are counted.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from minikv.parallel.sockets import PROBE_SECONDS

PORT = 4711
TOKENS = 8


@dataclass(frozen=True)
class Cable:
    """Two namespaces, each with an end of a cable."""

    here: str
    there: str
    address: str  # of the end here

    def run(self, side: str, *argv: object) -> subprocess.Popen:
        """A minikv in a namespace."""
        inside = ["ip", "netns", "exec", side, sys.executable, "-m", "minikv"]
        return subprocess.Popen(
            [*inside, *map(str, argv)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def carried(self) -> int:
        """Bytes that have gone through the end here, in both directions."""
        listed = ip("-n", self.here, "-s", "-j", "link", "show", self.here)
        counted = json.loads(listed)[0]["stats64"]
        return counted["rx"]["bytes"] + counted["tx"]["bytes"]


def ip(*argv: str) -> str:
    return subprocess.run(["ip", *argv], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def cable() -> Iterator[Cable]:
    if shutil.which("ip") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("needs Linux's ip, and root")
    here, there = f"kva{os.getpid() % 10**6}", f"kvb{os.getpid() % 10**6}"
    try:
        ip("netns", "add", here)
        ip("netns", "add", there)
        ip("link", "add", here, "netns", here, "type", "veth", "peer", there, "netns", there)
        for side, address in ((here, "10.99.0.1/24"), (there, "10.99.0.2/24")):
            ip("-n", side, "address", "add", address, "dev", side)
            ip("-n", side, "link", "set", side, "up")
            ip("-n", side, "link", "set", "lo", "up")
        yield Cable(here, there, f"10.99.0.1:{PORT}")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"needs network namespaces: {error.stderr}")
    finally:
        for side in (here, there):
            subprocess.run(["ip", "netns", "delete", side], capture_output=True)


@pytest.mark.slow
def test_two_machines_have_the_answer_of_one_and_every_byte_goes_over_the_cable(cable, tiny):
    argv = ["generate", "Hello", "--model", tiny, "--arithmetic", "exact"]
    argv += ["--max-new-tokens", TOKENS, "--json"]
    quiet = cable.carried()
    alone = json.loads(cable.run(cable.here, *argv).communicate(timeout=120)[0])
    before = cable.carried()
    assert before - quiet < 2000  # the control: only what IPv6 says when an end comes up
    first = cable.run(cable.here, *argv, "--ranks", 2, "--listen", cable.address)
    other = cable.run(cable.there, "serve-rank", cable.address, "--json")
    told, said = (json.loads(process.communicate(timeout=120)[0]) for process in (first, other))
    assert told["ids"] == alone["ids"]
    assert said["wire_bytes"] == told["wire_bytes"] > 1000
    assert cable.carried() - before > told["wire_bytes"]


@pytest.mark.slow
def test_a_pulled_cable_is_noticed_on_both_ends(cable, tiny):
    argv = ["generate", "Hello", "--model", tiny, "--max-new-tokens", 100_000]
    first = cable.run(cable.here, *argv, "--ranks", 2, "--listen", cable.address)
    other = cable.run(cable.there, "serve-rank", cable.address)
    while cable.carried() < 30_000:  # they compute
        time.sleep(0.05)
    ip("-n", cable.there, "link", "set", cable.there, "down")
    began = time.monotonic()
    ends = [process.communicate(timeout=60)[1] for process in (first, other)]
    assert time.monotonic() - began < 3 * PROBE_SECONDS
    assert [first.returncode, other.returncode] == [2, 2]
    assert all("was lost" in said for said in ends), ends
