"""Walls around a student's code: what it may use, and what it cannot reach.

* Limits of the system (``setrlimit``): processor time, memory, sizes of files, open files.
* Landlock (Linux 5.13 and later): no file outside of named folders can be read or written, and
  no program can be started.
* Namespaces (``unshare``): a network that leads nowhere, and no process outlives the one that it
  came from.
* Python's audit hook: what would hit a wall is refused with a sentence for the student.

The hook alone is no wall; ``describe`` says which walls stand. What none of them can do: keep
code from tampering with the Python process that runs it, and so with its own mark. Nor do they
bound processes together, or all files together: the limits hold for each process and each file.
Sockets that have paths, and changes of modes, owners and times, the hook alone refuses.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

MEMORY = 4 * 2**30
"""Bytes of address space, most of which models reserve and never touch."""
FILE_BYTES = 10 * 2**20

_CREATE_RULESET = 444  # numbers of system calls, the same on x86-64, ARM and RISC-V
_ADD_RULE = 445
_RESTRICT_SELF = 446
_VERSION = 1 << 0
_BENEATH = 1
_NO_NEW_PRIVILEGES = 38
_READ = 1 << 2 | 1 << 3  # files, folders
_EXECUTE = 1 << 0
_WRITE = 1 << 1 | sum(1 << bit for bit in range(4, 13))  # write; remove and make anything
_MAKE_SYMLINK = 1 << 12
_REFER, _TRUNCATE = 1 << 13, 1 << 14  # known from the second and the third version on

_NAMESPACES = (
    "unshare",
    "--user",
    "--map-root-user",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
)
_REFUSED = (
    "socket.",
    "os.chmod",  # these five Landlock lets pass, and their paths can be of another folder
    "os.chown",
    "os.utime",
    "os.setxattr",
    "os.removexattr",
    "subprocess.",
    "os.system",
    "os.fork",
    "os.forkpty",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.kill",
    "os.killpg",
    "ctypes.",
    "signal.pthread_kill",
)
_CHANGES = {
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
    "shutil.rmtree",
}


def limit(seconds: int, memory: int = MEMORY) -> None:
    """Bound what this process may use; beyond it the system refuses, or ends the process."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def landlock_version() -> int:
    """Which Landlock the kernel has; 0 for none."""
    if sys.platform != "linux":
        return 0
    return max(0, _libc().syscall(_CREATE_RULESET, None, 0, _VERSION))


def confine(writable: Iterable[Path], readable: Iterable[Path]) -> bool:
    """Let this process, and all that it starts, reach these folders and no others.

    It cannot start programs, those of the folders included, nor make symbolic links, which would
    lead whoever cleans up out of the folder.

    Returns
    -------
    bool
        Whether the kernel does it.
    """
    version = landlock_version()
    if not version:
        return False
    write = _WRITE | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    libc, handled = _libc(), write | _READ | _EXECUTE
    rules = libc.syscall(_CREATE_RULESET, struct.pack("Q", handled), 8, 0)
    if rules < 0:
        return False
    _allow(rules, Path(os.devnull), 1 << 1 | 1 << 2)  # a file: to be read and written
    for folder in readable:
        _allow(rules, folder, _READ)
    for folder in writable:
        _allow(rules, folder, handled & ~_EXECUTE & ~_MAKE_SYMLINK)
    done: bool = (
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
        and libc.syscall(_RESTRICT_SELF, rules, 0) == 0
    )
    os.close(rules)
    return done


def _allow(rules: int, path: Path, rights: int) -> None:
    if not path.exists():
        return
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    _libc().syscall(_ADD_RULE, rules, _BENEATH, struct.pack("=Qi", rights, handle), 0)
    os.close(handle)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def refuse(folder: Path) -> None:
    """From now on, say in words what a student's code may not do. It cannot be taken back."""
    inside = os.path.join(os.path.realpath(folder), "")

    def hook(event: str, arguments: tuple) -> None:
        if event.startswith(_REFUSED):
            raise PermissionError(f"{event} is not allowed while an exercise is graded")
        for given in _changed(event, arguments):
            path = os.path.realpath(os.fsdecode(given))
            if path != os.devnull and not path.startswith(inside):
                raise PermissionError(f"{path} may not be changed while an exercise is graded")

    sys.addaudithook(hook)


def _changed(event: str, arguments: tuple) -> list[str | bytes]:
    """The paths that an event of the audit hook is about to change."""
    if event == "open":
        flags = arguments[2] or 0
        if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            return []
    elif event not in _CHANGES:
        return []
    return [each for each in arguments[:2] if isinstance(each, str | bytes) and each != "r"]


def apart(command: Sequence[str]) -> list[str]:
    """The command with namespaces of its own for network and processes, where the system can."""
    return [*(_NAMESPACES if has_namespaces() else ()), *command]


@cache
def has_namespaces() -> bool:
    """Whether this user may have namespaces of their own here."""
    if not shutil.which("unshare"):
        return False
    return subprocess.run([*_NAMESPACES, "true"], capture_output=True).returncode == 0


def describe() -> dict[str, bool]:
    """Which walls stand on this machine."""
    return {
        "files (Landlock)": landlock_version() > 0,
        "network and processes (namespaces)": has_namespaces(),
    }
