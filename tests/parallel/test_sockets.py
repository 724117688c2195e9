"""Ranks over TCP: what arrives, who is refused, and how an end is noticed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from test_split import GOLDEN

from minikv.errors import InputError, RankError
from minikv.fingerprint import hash_logits
from minikv.parallel import Comm, load_rank
from minikv.parallel.sockets import HELLO, Door, Hub, Line, Spoke, join, parse_address, probe
from minikv.parallel.start import ending

SOON = 5.0  # seconds in which an end is noticed


def over_tcp(size: int, work: Callable[[Comm], object]) -> list[object]:
    """Run ``work(comm)`` on each rank, a thread with a connection; results or errors, by rank."""
    door = Door("127.0.0.1", 0)
    found: dict[int, object] = {}

    def run(come: Callable[[], Comm]) -> None:
        comm = come()
        try:
            with ending(comm):
                found[comm.rank] = work(comm)
        except Exception as error:
            found[comm.rank] = error

    callers = [lambda: door.gather_ranks(size)] + [lambda: join(door.address)] * (size - 1)
    threads = [threading.Thread(target=run, args=(come,)) for come in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    return [found[rank] for rank in range(size)]


def test_every_rank_gets_the_same_from_all():
    def work(comm: Comm) -> tuple:
        mine = np.array([[comm.rank, -comm.rank]], dtype=np.float64)
        ragged = comm.gather(np.arange(comm.rank, dtype=np.int64))
        big = comm.sum(np.full((300, 1000), 1.0 + comm.rank))
        assert (big == 6.0).all()
        assert comm.from_first({"rank": comm.rank}) == {"rank": 0}
        assert comm.wire > big.nbytes
        return comm.max(mine).tolist(), comm.sum(mine).tolist(), [len(part) for part in ragged]

    assert over_tcp(3, work) == [([[2.0, 0.0]], [[3.0, -3.0]], [0, 1, 2])] * 3


def test_three_ranks_over_tcp_have_the_golden_fingerprint(tiny):
    def work(comm: Comm) -> str:
        return hash_logits(load_rank(tiny, comm).logits(GOLDEN["ids"]))

    assert over_tcp(3, work) == [GOLDEN["fingerprint"]] * 3


@pytest.mark.parametrize("faulty", [0, 1, 2])
def test_an_error_on_one_rank_ends_all_with_its_message(faulty):
    def work(comm: Comm) -> None:
        comm.sum(np.zeros(2))
        if comm.rank == faulty:
            raise InputError("a fault, expected none")
        comm.sum(np.zeros(2))

    found = [str(error) for error in over_tcp(3, work)]
    assert found.pop(faulty) == "a fault, expected none"
    assert found == [f"rank {faulty}: a fault, expected none"] * 2


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_rank_is_noticed_at_once_and_ends_all(lost):
    began = time.monotonic()

    def work(comm: Comm) -> None:
        comm.sum(np.zeros(2))
        if comm.rank == lost:  # as a killed process: no last words
            lines = comm.lines.values() if isinstance(comm, Hub) else [comm.line]
            for line in lines:
                line.end.shutdown(socket.SHUT_RDWR)
            raise RankError("gone")
        comm.sum(np.zeros(2))

    found = [str(error) for error in over_tcp(3, work)]
    found.pop(lost)
    assert all(f"rank {lost}" in said and "was lost" in said for said in found), found
    assert time.monotonic() - began < SOON


def test_ranks_that_give_other_shapes_to_a_sum_end():
    found = over_tcp(2, lambda comm: comm.sum(np.zeros(1 + comm.rank)))
    assert [str(error) for error in found] == [
        "ranks give arrays of (2,) and (1,) to one sum",
        "ranks give arrays of (2,) and (1,) to one sum",
    ]


def test_ranks_that_make_other_calls_end():
    def work(comm: Comm) -> None:
        if comm.rank:
            comm.calls += 1
        comm.sum(np.zeros(1))

    found = [str(error) for error in over_tcp(2, work)]
    assert all("makes call 2 where this rank makes call 1" in said for said in found)


def test_an_array_of_objects_is_not_sent():
    found = over_tcp(2, lambda comm: comm.gather(np.array([None])))
    assert "an array of object cannot be sent" in str(found[1])


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", HELLO + bytes(32), b"x" * 1000])
def test_strangers_are_no_ranks(said):
    door = Door("127.0.0.1", 0, key="secret")
    stranger = socket.create_connection(parse_address(door.address))
    stranger.sendall(said)
    stranger.shutdown(socket.SHUT_WR)
    with pytest.raises(RankError, match=r"0 of 1 ranks came to .* within 1 s: start the others"):
        door.gather_ranks(2, seconds=0.6)
    stranger.close()


def test_another_key_is_refused():
    door = Door("127.0.0.1", 0, key="ours")
    refusals = []

    def call() -> None:
        try:
            join(door.address, key="theirs", seconds=2)
        except InputError as error:
            refusals.append(str(error))

    caller = threading.Thread(target=call)
    caller.start()
    with pytest.raises(RankError, match="0 of 1 ranks came"):
        door.gather_ranks(2, seconds=0.5)
    caller.join()
    assert refusals == [
        f"{door.address} is no run of minikv, or it has ranks enough, or another key"
    ]


def test_a_port_in_use_is_refused():
    door = Door("127.0.0.1", 0)
    port = door.address.rpartition(":")[2]
    with pytest.raises(InputError, match=r"cannot listen at 127\.0\.0\.1:\d+: .*; choose another"):
        Door("127.0.0.1", int(port))
    door.server.close()


def test_nobody_at_an_address_is_said():
    door = Door("127.0.0.1", 0)
    door.server.close()
    with pytest.raises(InputError, match=r"nobody answers at .*: start  minikv generate"):
        join(door.address, seconds=0.2)


@pytest.mark.parametrize("text", ["", "host", "host:", ":80", "host:x", "host:99999", "host:-1"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InputError, match="is no address, expected HOST:PORT"):
        parse_address(text)


def test_a_machine_that_is_gone_is_probed_for():
    end = socket.socket()
    probe(end)
    assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 10_000
    end.close()


@pytest.mark.parametrize(
    ("sent", "word"),
    [
        (b"XXXX" + bytes(5), "sends what is no array"),
        (b"A<f8" + b"\x09" + bytes(4), "sends what is no array"),
        (b"A<f8" + b"\x01" + bytes(4) + b"\xff" * 8, "which is too large"),
        (b"A<f8", "was lost"),
    ],
)
def test_what_is_no_array_is_refused(sent, word):
    one, other = tcp_pair()
    other.sendall(sent)
    other.close()
    spoke = Spoke(Line(one, "rank 0"), 1, 2)
    with pytest.raises(RankError, match=word):
        spoke.line.get(0)
    spoke.line.leave()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    return one, other
