"""Ranks as processes, on one machine or many, that speak TCP: nothing to install.

A star. Rank 0 listens, numbers the others as they come, and reduces in the order in which their
arrays arrive. Nothing but arrays, and the text of an error, goes over the wire; no pickles.

Who fails says why, and rank 0 passes it on. Who is gone is known by the end of its connection, or,
where a machine or a cable is gone, by TCP's own probes, within `PROBE_SECONDS`. A process that only
stands still is waited for.
"""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator

import numpy as np

from ..errors import InputError, RankError
from .comm import Comm, Reduction

HELLO = b"minikv1\n"
JOIN_SECONDS = 120.0  # for all ranks to come
GREET_SECONDS = 5.0  # for one of them to say who it is
PROBE_SECONDS = 6  # after which a machine that does not answer is taken to be gone
LEAVE_SECONDS = 2.0  # for an error's last words to be read
MOST_BYTES = 1 << 34  # of an array, and
MOST_AXES = 8
DTYPES = {b"<f8", b"<f4", b"<i8", b"<i4", b"|u1"}
_ARRAY = b"A"
_ERROR = b"E"
_HEAD = struct.Struct("<1s3sBI")  # kind, type of numbers, axes, which call


def key_digest(key: str) -> bytes:
    """What is shown for a key, so that strangers who find the port are told from ranks."""
    return hashlib.sha256(key.encode()).digest()


def parse_address(text: str) -> tuple[str, int]:
    """``HOST:PORT``, or an `InputError`.

    Examples
    --------
    >>> parse_address("localhost:4711"), parse_address("[::1]:4711")
    (('localhost', 4711), ('::1', 4711))
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InputError(f"{text!r:.80} is no address, expected HOST:PORT, such as 10.0.0.1:4711")
    return host.strip("[]"), int(port)


class Line:
    """A connection that carries arrays and errors."""

    def __init__(self, end: socket.socket, who: str) -> None:
        self.end = end
        self.who = who
        end.settimeout(None)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        probe(end)
        self.wire = 0

    def fileno(self) -> int:
        """For ``select``."""
        return self.end.fileno()

    def put(self, array: np.ndarray, call: int) -> None:
        """Send an array, its numbers little-endian."""
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        dtype = array.dtype.str.encode()
        if dtype not in DTYPES:
            raise RankError(f"an array of {array.dtype} cannot be sent")
        head = _HEAD.pack(_ARRAY, dtype, array.ndim, call)
        head += struct.pack(f"<{array.ndim}Q", *array.shape)
        self._send(head + array.tobytes())

    def put_error(self, message: str) -> None:
        """Send why there will be no array."""
        text = message.encode()[:4000]
        self._send(_HEAD.pack(_ERROR, b"|u1", 1, 0) + struct.pack("<Q", len(text)) + text)

    def get(self, call: int) -> np.ndarray:
        """The array of the other end; raises `RankError` with its error, or where it is gone."""
        kind, dtype, axes, number = _HEAD.unpack(self.take(_HEAD.size))
        if kind not in (_ARRAY, _ERROR) or dtype not in DTYPES or axes > MOST_AXES:
            raise RankError(f"{self.who} sends what is no array")
        shape = struct.unpack(f"<{axes}Q", self.take(8 * axes))
        count = 1
        for length in shape:
            count *= length
        if count * np.dtype(dtype.decode()).itemsize > MOST_BYTES:
            raise RankError(f"{self.who} sends an array of shape {shape}, which is too large")
        data = self.take(count * np.dtype(dtype.decode()).itemsize)
        if kind == _ERROR:
            raise RankError(data.decode(errors="replace"))
        if number != call:
            raise RankError(f"{self.who} makes call {number} where this rank makes call {call}")
        array = np.frombuffer(data, np.dtype(dtype.decode())).reshape(shape)
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def take(self, count: int) -> bytearray:
        """So many bytes."""
        data = bytearray(count)
        view = memoryview(data)
        done = 0
        while done < count:
            try:
                got = self.end.recv_into(view[done:])
            except OSError as error:
                raise RankError(f"{self.who} was lost: {error.strerror or error}") from None
            if not got:
                raise RankError(f"{self.who} was lost: it closed the connection")
            done += got
        self.wire += count
        return data

    def _send(self, data: bytes) -> None:
        try:
            self.end.sendall(data)
        except OSError as error:
            raise RankError(f"{self.who} was lost: {error.strerror or error}") from None
        self.wire += len(data)

    def leave(self) -> None:
        """Close when the other end has read what was sent, or has had time to."""
        with contextlib.suppress(OSError):
            self.end.shutdown(socket.SHUT_WR)
            self.end.settimeout(LEAVE_SECONDS)
            while self.end.recv(1 << 16):
                pass
        self.end.close()


def probe(end: socket.socket) -> None:
    """Let the system notice a machine that is gone, where it can be told how soon."""
    settings = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": PROBE_SECONDS - 2}
    settings["TCP_USER_TIMEOUT"] = 1000 * PROBE_SECONDS  # of what was sent, in milliseconds
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in settings.items():
        if hasattr(socket, name):
            end.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Hub(Comm):
    """Rank 0: to all others it has a line."""

    rank = 0

    def __init__(self, lines: dict[int, Line]) -> None:
        self.lines = lines
        self.size = 1 + len(lines)

    def reduce(self, array: np.ndarray, reduction: Reduction) -> np.ndarray:
        total = array.copy()
        for _, part in self._arrivals():  # who comes first is added first
            if part.shape != total.shape or part.dtype != total.dtype:
                self._end(f"ranks give arrays of {part.shape} and {total.shape} to one sum")
            reduction(total, part, out=total)
        self._answer([total])
        return total

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        parts = {0: array.copy()} | dict(self._arrivals())
        found = [parts[rank] for rank in range(self.size)]
        self._answer(found)
        return found

    def fail(self, message: str) -> None:
        for line in self.lines.values():
            with contextlib.suppress(RankError):
                line.put_error(message)

    def close(self) -> None:
        for line in self.lines.values():
            line.leave()

    def _arrivals(self) -> Iterator[tuple[int, np.ndarray]]:
        """Ranks and their arrays, as they come."""
        waiting = {line: rank for rank, line in self.lines.items()}
        self.calls += 1
        while waiting:
            for line in select.select(list(waiting), [], [])[0]:
                try:
                    yield waiting.pop(line), line.get(self.calls)
                except RankError as error:
                    self._end(str(error))

    def _answer(self, arrays: list[np.ndarray]) -> None:
        for line in self.lines.values():
            try:
                for array in arrays:
                    line.put(array, self.calls)
            except RankError as error:
                self._end(str(error))
        self.wire = sum(line.wire for line in self.lines.values())

    def _end(self, message: str) -> None:
        """Tell the others, who wait for an answer, and end too."""
        self.fail(message)
        raise RankError(message)


class Spoke(Comm):
    """Any other rank: its line goes to rank 0."""

    def __init__(self, line: Line, rank: int, size: int) -> None:
        self.line = line
        self.rank = rank
        self.size = size

    def reduce(self, array: np.ndarray, reduction: Reduction) -> np.ndarray:
        return self._call(array, 1)[0]

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        return self._call(array, self.size)

    def fail(self, message: str) -> None:
        with contextlib.suppress(RankError):
            self.line.put_error(message)

    def close(self) -> None:
        self.line.leave()

    def _call(self, array: np.ndarray, answers: int) -> list[np.ndarray]:
        self.calls += 1
        self.line.put(array, self.calls)
        found = [self.line.get(self.calls) for _ in range(answers)]
        self.wire = self.line.wire
        return found


class Door:
    """Where rank 0 waits for the others.

    Raises
    ------
    InputError
        If the port is in use, or the host is not this machine.
    """

    def __init__(self, host: str, port: int, key: str = "") -> None:
        self.key = key
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self.server = socket.create_server((host, port), family=family)
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"cannot listen at {host}:{port}: {reason}; choose another") from None
        self.address = f"{host}:{self.server.getsockname()[1]}"

    def gather_ranks(
        self, size: int, look: Callable[[], None] = lambda: None, seconds: float | None = None
    ) -> Hub:
        """Wait until all ranks are here.

        Parameters
        ----------
        size : int
            How many, rank 0 included.
        look : callable
            Called again and again; raises an error to give up.
        seconds : float, optional
            `JOIN_SECONDS` by default.

        Raises
        ------
        RankError
            If not all come in time.
        """
        lines: dict[int, Line] = {}
        if seconds is None:
            seconds = JOIN_SECONDS
        end = time.monotonic() + seconds
        self.server.settimeout(0.1)
        with self.server:
            while len(lines) < size - 1:
                look()
                if time.monotonic() > end:
                    raise RankError(
                        f"{len(lines)} of {size - 1} ranks came to {self.address} within "
                        f"{seconds:.0f} s: start the others with  minikv serve-rank HOST:PORT"
                    )
                with contextlib.suppress(TimeoutError):
                    caller, address = self.server.accept()
                    rank = 1 + len(lines)
                    if self._greeted(caller, rank, size):
                        lines[rank] = Line(caller, f"rank {rank} ({address[0]})")
        return Hub(lines)

    def _greeted(self, caller: socket.socket, rank: int, size: int) -> bool:
        """Whether a caller is a rank; it is told which one."""
        expected = HELLO + key_digest(self.key)
        caller.settimeout(GREET_SECONDS)
        with contextlib.suppress(OSError):
            said = b""
            while len(said) < len(expected):
                part = caller.recv(len(expected) - len(said))
                if not part:
                    break
                said += part
            if said == expected:
                caller.sendall(HELLO + struct.pack("<II", rank, size))
                return True
        caller.close()
        return False


def join(address: str, key: str = "", seconds: float | None = None) -> Spoke:
    """Become a rank of the run whose rank 0 is, or soon will be, at ``HOST:PORT``.

    Raises
    ------
    InputError
        If nobody listens there in time, or it is no run of minikv's, or one with another key.
    """
    host, port = parse_address(address)
    if seconds is None:
        seconds = JOIN_SECONDS
    end = time.monotonic() + seconds
    while True:
        try:
            caller = socket.create_connection((host, port), timeout=GREET_SECONDS)
            break
        except OSError as error:
            if time.monotonic() > end:
                raise InputError(
                    f"nobody answers at {address} ({error.strerror or error}): start  "
                    f"minikv generate ... --ranks N --listen {address}"
                ) from None
            time.sleep(0.1)
    line = Line(caller, "rank 0")
    line.end.settimeout(seconds)  # it may be waiting for others first
    try:
        line.end.sendall(HELLO + key_digest(key))
        answer = line.take(len(HELLO) + 8)
    except (OSError, RankError):
        answer = bytearray()
    if not answer.startswith(HELLO):
        caller.close()
        raise InputError(f"{address} is no run of minikv, or it has ranks enough, or another key")
    line.end.settimeout(None)
    rank, size = struct.unpack("<II", answer[len(HELLO) :])
    line.wire = 0
    return Spoke(line, rank, size)
