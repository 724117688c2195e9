"""The options of a run on several processes, and how these come together."""

from __future__ import annotations

import secrets
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..config import ModelConfig
from ..errors import InputError
from ..parallel.comm import Comm
from ..parallel.gloo import Gloo, started_by_torchrun
from ..parallel.mpi import Mpi, started_by_mpi
from ..parallel.share import check_size
from ..parallel.sockets import parse_address
from ..parallel.start import ending, local_ranks, ranks_elsewhere
from ..parallel.state import check_policy
from ..weights import resolve
from .fetch import fetch_missing
from .options import count
from .output import print_aside, readable


def add_ranks(parser: ArgumentParser) -> None:
    """Add ``--ranks`` and what belongs to it."""
    group = parser.add_argument_group("several processes, each with a part of the model")
    group.add_argument(
        "--ranks",
        type=count,
        default=1,
        metavar="N",
        help="run on N processes; under --arithmetic exact the bits of one (default: 1; under "
        "mpirun or torchrun as many as it started)",
    )
    group.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help="wait there for the other ranks, which `minikv serve-rank HOST:PORT` starts on other "
        "machines (default: they are started here)",
    )
    group.add_argument(
        "--key", default="", metavar="WORD", help="what these ranks must give as --key too"
    )


@contextmanager
def chosen_ranks(args: Namespace) -> Iterator[Comm | None]:
    """This process among the ranks that the options name; None where it is alone."""
    started = started_by_mpi() or started_by_torchrun()
    if started > 1:
        if args.listen or args.ranks not in (1, started):
            raise InputError(
                f"mpirun or torchrun started {started} processes: leave --ranks and --listen away"
            )
        _check(args, started)
        with ending(_world()) as comm:
            yield comm
    elif args.listen:
        if args.ranks < 2:
            raise InputError("--listen waits for other ranks: give --ranks N, how many in all")
        host, port = parse_address(args.listen)
        _check(args, args.ranks)
        with ranks_elsewhere(args.ranks, host, port, args.key) as comm:
            yield comm
    elif args.ranks > 1:
        _check(args, args.ranks)
        with local_ranks(args.ranks) as comm:
            yield comm
    else:
        yield None


def _world() -> Comm:
    """All processes that mpirun or torchrun started."""
    if started_by_mpi():
        return Mpi()
    return Gloo()


def _check(args: Namespace, size: int) -> None:
    """Refuse before any process is started what cannot run on so many."""
    check_policy(args.cache)
    if args.fetch:
        fetch_missing(args.model)
    check_size(ModelConfig.from_folder(resolve(args.model)), size)


def shared(args: Namespace, comm: Comm, read: dict[str, Any]) -> Namespace:
    """Rank 0's options, on every rank, with what it `read` from files and from nowhere else.

    Where tokens are drawn, all ranks draw with one seed.
    """
    given = {name: value for name, value in vars(args).items() if name not in ("run", "command")}
    given |= read
    if given["temperature"] > 0 and given["seed"] is None:
        given["seed"] = secrets.randbelow(2**63)
    told: Any = comm.from_first(given)
    return Namespace(**told)


def say_wire(comm: Comm) -> None:
    """What the ranks have said to each other, on standard error."""
    said = f"rank 0 sent and received {readable(comm.wire)} in {comm.calls} calls"
    print_aside(f"[{comm.size} ranks; {said}]")
