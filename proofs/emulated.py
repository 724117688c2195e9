"""Other instruction sets: Debian's Python and NumPy for them, run by QEMU's user mode.

Packages come from the mirror that apt uses here, and are only unpacked: no chroot, no binfmt_misc,
no script of a package. QEMU reads one program's instructions and does what they say, which shows
the arithmetic of an instruction set as QEMU has it, and not a chip.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minikv.errors import InputError

SUITES = ("trixie", "forky")  # with NumPy 2.1 or newer; the next where one cannot be fetched whole
PACKAGES = ("python3-numpy", "python3-minimal")
PACKAGED = "apt-get install mmdebstrap qemu-user-static"
# What apt is told here of dates and proxies, mmdebstrap's own apt has to be told again.
PASSED_ON = (
    "Acquire::Check-Valid-Until",
    "Acquire::http::Proxy",
    "Acquire::https::Proxy",
)


@dataclass(frozen=True)
class Processor:
    """An instruction set: Debian's name of its libraries' folder, QEMU's name, and options."""

    libraries: str
    qemu: str
    options: tuple[str, ...] = ()

    @property
    def emulator(self) -> list[str]:
        return [f"qemu-{self.qemu}-static", *self.options]


PROCESSORS = {
    # Return addresses are signed by a quick function, not the specified one: 5 times faster.
    "arm64": Processor("aarch64-linux-gnu", "aarch64", ("-cpu", "max,pauth-impdef=on")),
    "armhf": Processor("arm-linux-gnueabihf", "arm"),
    "i386": Processor("i386-linux-gnu", "i386"),
    "ppc64el": Processor("powerpc64le-linux-gnu", "ppc64le"),
    "riscv64": Processor("riscv64-linux-gnu", "riscv64"),
    "s390x": Processor("s390x-linux-gnu", "s390x"),
}


def chosen(names: Sequence[str]) -> list[str]:
    """The architectures that are meant by these names: all by none; a wrong one is refused."""
    for name in names:
        if name not in PROCESSORS:
            raise InputError(f"--emulated {name}: expected some of {', '.join(PROCESSORS)}")
    return list(dict.fromkeys(names)) or list(PROCESSORS)


def expect_tools(names: Sequence[str]) -> None:
    """Refuse if a program that fetches or emulates is missing."""
    needed = ["mmdebstrap", *(PROCESSORS[name].emulator[0] for name in names)]
    lacking = [program for program in needed if shutil.which(program) is None]
    if lacking:
        raise InputError(f"--emulated needs {', '.join(lacking)}, not on the PATH: run  {PACKAGED}")


def emulator_version(name: str) -> str:
    """QEMU's name and version: ``"QEMU 7.2.22"``."""
    line = [PROCESSORS[name].emulator[0], "--version"]
    words = subprocess.run(line, capture_output=True, text=True).stdout.split()
    return f"QEMU {words[2]}" if len(words) > 2 else "QEMU"


def mirror() -> str:
    """Where apt gets Debian's packages on this machine."""
    line = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    line += ["Origin: Debian", "Label: Debian", "Component: main", "Created-By: Packages"]
    try:
        found = subprocess.run(line, capture_output=True, text=True).stdout.split()
    except OSError:
        found = []
    if not found:
        raise InputError(
            "--emulated: apt's sources on this machine name no mirror of Debian's packages: run it "
            "on Debian, after apt-get update"
        )
    return found[0]


def apt_options() -> list[str]:
    """What apt is told on this machine, for mmdebstrap's own apt."""
    line = ["apt-config", "dump", "--format", '%F "%v";%n', *PASSED_ON]
    said = subprocess.run(line, capture_output=True, text=True).stdout.splitlines()
    return [f"--aptopt={option}" for option in said if not option.endswith(' "";')]


def fetched(name: str, root: Path) -> str:
    """Unpack Debian's Python and NumPy into a folder, once; the release that they are from.

    Raises
    ------
    InputError
        With the last release's words, if none has all packages.
    """
    release = root / "release"
    if not release.is_file():
        suite = _unpack(name, root)
        for link in ("lib", "lib64"):  # what a package's script would have made
            if not (root / link).exists() and (root / "usr" / link).exists():
                (root / link).symlink_to(f"usr/{link}")
        release.write_text(f"Debian {suite}", encoding="utf-8")
    return release.read_text(encoding="utf-8")


def _unpack(name: str, root: Path) -> str:
    """The suite whose packages are unpacked."""
    source = mirror()
    said = ""
    for suite in SUITES:
        shutil.rmtree(root, ignore_errors=True)
        line = ["mmdebstrap", "--quiet", "--mode=chrootless", "--variant=extract"]
        line += [f"--architectures={name}", f"--include={','.join(PACKAGES)}", *apt_options()]
        done = subprocess.run([*line, suite, str(root), source], capture_output=True, text=True)
        if done.returncode == 0:
            return suite
        said = next((word for word in done.stderr.splitlines() if word.startswith("E: ")), "")
    shutil.rmtree(root, ignore_errors=True)
    raise InputError(f"mmdebstrap fetches no {name} of {' or '.join(SUITES)}: {said}")


def libraries(name: str, root: Path) -> str:
    """Where BLAS and LAPACK lie, whose usual links a package's script would have made."""
    folder = root / "usr" / "lib" / PROCESSORS[name].libraries
    return ":".join(str(folder / library) for library in ("blas", "lapack"))


def emulated_python(name: str, root: Path) -> list[str]:
    """The command that runs Python, fetched into `root`, on QEMU."""
    emulator = PROCESSORS[name].emulator
    settings = ["-E", f"LD_LIBRARY_PATH={libraries(name, root)}"]
    return [*emulator, "-L", str(root), *settings, str(root / "usr" / "bin" / "python3")]


def native_python(name: str, root: Path) -> list[str]:
    """The command that runs the same Python on this processor; empty if it cannot."""
    if name != "i386" or platform.machine() != "x86_64":
        return []
    folder = root / "usr" / "lib" / PROCESSORS[name].libraries
    loader = [str(root / "usr" / "lib" / "ld-linux.so.2")]
    loader += ["--library-path", f"{folder}:{libraries(name, root)}"]
    return [*loader, str(root / "usr" / "bin" / "python3")]


def variables(root: Path) -> dict[str, str]:
    """Environment variables for a Python that was fetched into `root`."""
    return {"PYTHONHOME": str(root / "usr"), "PYTHONPYCACHEPREFIX": str(root / "compiled")}
