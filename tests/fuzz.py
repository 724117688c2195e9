"""Mutated configurations, tokenizers, safetensors and GGUF files: loaded, or refused in one line.

    python -m tests.fuzz --count 100000        # for the night; prints what it counted

Case n of a seed is always the same, so a failure is repeated by ``--only N``. A case fails if
anything but a `MinikvError` of one line comes out of it, if it takes longer than ``--seconds``, if
its process dies, or if a process comes to hold more than ``--megabytes``.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import json
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import minikv
from minikv.config import FAMILIES, FULL, SLIDING, ModelConfig
from minikv.tokenizer import Tokenizer
from minikv.weights import load_tensors
from minikv.weights.gguf import convert
from tests.gguf_writer import write_gguf

TINY = Path(__file__).parent / "fixtures" / "tiny"
TEXTS = ("", "the stream is é🙂", "<|im_start|>x  y\n123")
TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
# Values that have broken readers of JSON before
ODD = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**64,
    -(2**63),
    10**400,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\0",
    "\ud800",
    "9" * 5000,
    "../../etc/passwd",
    [],
    [[]],
    [None] * 9,
    {},
    {"a": {}},
    {"content": "<x>", "special": True},
)


_CHUNK = 2000  # cases a process


class Failed(Exception):
    """A case that neither loaded nor was refused in one line."""


# What is mutated


def configurations() -> dict[str, Any]:
    """A ``config.json`` of every family and spelling, by a name."""
    numbers = {
        "vocab_size": 97,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "tie_word_embeddings": True,
        "quantization_config": None,
        "sliding_window": 8,
        "layer_types": [SLIDING, FULL, SLIDING],
    }
    llama3 = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    made: dict[str, Any] = {}
    for kind in FAMILIES:
        old = {"model_type": kind, **numbers, "rope_theta": 1e4, "rope_scaling": None}
        if kind == "mistral":
            del old["layer_types"]
        made[f"{kind}, 4"] = old
        new = {key: value for key, value in old.items() if not key.startswith("rope_")}
        made[f"{kind}, 5"] = {**new, "rope_parameters": {"rope_theta": 1e4, **llama3}}
    made["qwen3, 4"] |= {"use_sliding_window": True, "max_window_layers": 1}
    made["llama, 4"]["rope_scaling"] = {"type": "linear", "factor": 2.0}
    gemma = made["gemma3_text, 5"]
    gemma["rope_parameters"] = {FULL: {**llama3, "rope_theta": 1e6}, SLIDING: {"rope_theta": 1e4}}
    made["gemma3"] = {"model_type": "gemma3", "text_config": gemma, "vision_config": {}}
    return made


def tokenizer_files() -> dict[str, Any]:
    """The files of a tokenizer, with everything that may stand beside it."""
    token = {"content": "<|x|>", "lstrip": False, "normalized": False, "special": True}
    settings = json.loads((TINY / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {
        "tokenizer_class": "LlamaTokenizerFast",
        "add_bos_token": True,
        "add_eos_token": False,
        "split_special_tokens": False,
        "additional_special_tokens": ["<|x|>"],
    }
    return {
        "tokenizer.json": json.loads((TINY / "tokenizer.json").read_text(encoding="utf-8")),
        "tokenizer_config.json": settings,
        "special_tokens_map.json": {"bos_token": token, "eos_token": "<|im_end|>"},
        "added_tokens.json": {"<|x|>": 320},
        "generation_config.json": {"eos_token_id": [2, 0]},
    }


# How it is mutated


def mutated_json(rng: random.Random, content: Any) -> Any:
    """Content with up to four of its values replaced, removed, moved, renamed or doubled."""
    content = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = list(_places(content))
        if not places:
            return rng.choice(ODD)
        holder, key = rng.choice(places)
        kind = rng.choice(("replace", "replace", "number", "remove", "move", "rename", "double"))
        value = holder[key]
        if kind == "replace":
            holder[key] = copy.deepcopy(rng.choice(ODD))
        elif kind == "number" and isinstance(value, (int, float)):
            holder[key] = value + rng.choice((-1, 1, 10**6))
        elif kind == "remove":
            del holder[key]
        elif kind == "move":
            other, there = rng.choice(places)
            with contextlib.suppress(KeyError, IndexError, TypeError):
                other[there] = copy.deepcopy(value)
        elif kind == "rename" and isinstance(holder, dict):
            holder[rng.choice(("x", f"{key}_", str(key)[1:], ""))] = holder.pop(key)
        elif kind == "double" and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(value))
    return content


def _places(content: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Holder and key of every value; of long lists and objects a few, so that all parts count."""
    if depth > 6 or not isinstance(content, (dict, list)):
        return
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    step = max(1, len(keys) // 12)
    for key in keys[::step]:
        yield content, key
        yield from _places(content[key], depth + 1)


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bytes flipped, set, cut, repeated or put in, mostly near the beginning."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        reach = rng.choice((8, 64, 400, len(made)))
        place = rng.randrange(max(1, min(reach, len(made))))
        size = rng.randint(1, 32)
        kind = rng.choice(("flip", "set", "cut", "end", "repeat", "insert"))
        if kind == "flip" and made:
            made[place] ^= 1 << rng.randrange(8)
        elif kind == "set" and made:
            made[place] = rng.choice((0, 34, 44, 58, 91, 93, 123, 125, 255))
        elif kind == "cut":
            del made[place : place + size]
        elif kind == "end":
            del made[place:]
        elif kind == "repeat":
            made[place:place] = made[place : place + size]
        elif kind == "insert":
            made[place:place] = rng.randbytes(size)
    return bytes(made)


def written(rng: random.Random, content: Any) -> bytes:
    """A JSON file of mutated content, or mutated as bytes."""
    if rng.random() < 0.75:
        text = json.dumps(mutated_json(rng, content))
        return text.encode("utf-8", "surrogatepass")
    return mutated_bytes(rng, json.dumps(content).encode())


# Cases


CONFIGURATIONS = list(configurations().values())
TOKENIZER_FILES = tokenizer_files()


def configuration(rng: random.Random, folder: Path) -> None:
    """A mutated ``config.json`` or ``generation_config.json``; what is read reads back."""
    content = rng.choice(CONFIGURATIONS)
    generation = {"eos_token_id": [2, 3]}
    spoil_generation = rng.random() < 0.1
    plain = json.dumps(content).encode()
    (folder / "config.json").write_bytes(plain if spoil_generation else written(rng, content))
    told = written(rng, generation) if spoil_generation else json.dumps(generation).encode()
    (folder / "generation_config.json").write_bytes(told)
    config = ModelConfig.from_folder(folder)
    again = config.to_dict()
    if ModelConfig.from_dict(again).to_dict() != again:
        raise Failed("to_dict reads back as another configuration")


def tokenizer(rng: random.Random, folder: Path) -> None:
    """One mutated file of a tokenizer, and what a tokenizer is asked for."""
    spoiled = rng.choice(list(TOKENIZER_FILES))
    if rng.random() < 0.5:
        spoiled = "tokenizer.json"
    for name, content in TOKENIZER_FILES.items():
        plain = json.dumps(content).encode()
        (folder / name).write_bytes(written(rng, content) if name == spoiled else plain)
    made = Tokenizer.from_folder(folder)
    for text in TEXTS:
        ids = made.encode(text)
        whole = made.decode(ids, skip_special=False)
        if "".join(made.stream(ids, skip_special=False)) != whole:
            raise Failed(f"{text!r} streams otherwise than it decodes")
        made.decode(ids, after=ids[:1])
    made.apply_chat_template(TALK)


def safetensors(rng: random.Random, folder: Path) -> None:
    """A mutated header or file, or a mutated index of two shards."""
    header, data = WEIGHTS
    if rng.random() < 0.3:
        _shards(rng, folder)
    elif rng.random() < 0.6:
        text = written(rng, header)
        length = len(text) if rng.random() < 0.9 else rng.choice((0, 2**16, 2**40, 2**64 - 1))
        (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + text + data)
    else:
        whole = json.dumps(header).encode()
        whole = len(whole).to_bytes(8, "little") + whole + data
        (folder / "model.safetensors").write_bytes(mutated_bytes(rng, whole))
    tensors = load_tensors(folder, SMALL)
    for name in tensors:
        if tensors[name].dtype != "float32":
            raise Failed(f"{name} is {tensors[name].dtype}")


def _shards(rng: random.Random, folder: Path) -> None:
    header, data = WEIGHTS
    names = sorted(header)
    placed = {}
    for number in (1, 2):
        part = {}
        body = b""
        for name in names[number - 1 :: 2]:
            begin, end = header[name]["data_offsets"]
            offsets = [len(body), len(body) + end - begin]
            part[name] = header[name] | {"data_offsets": offsets}
            body += data[begin:end]
        file = f"model-{number}.safetensors"
        text = json.dumps(part).encode()
        (folder / file).write_bytes(len(text).to_bytes(8, "little") + text + body)
        placed |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": len(data)}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_bytes(written(rng, index))


SMALL = minikv.tiny_config(vocab_size=7, hidden_size=4, intermediate_size=6, num_hidden_layers=1)


def _small_weights() -> tuple[dict[str, Any], bytes]:
    header: dict[str, Any] = {}
    data = b""
    for name, tensor in minikv.random_tensors(SMALL, 0).items():
        raw = tensor.tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets}
        data += raw
    return header, data


def gguf(rng: random.Random, folder: Path) -> None:
    """A mutated GGUF file, mostly in its metadata."""
    (folder / "a.gguf").write_bytes(mutated_bytes(rng, GGUF))
    convert(folder / "a.gguf", folder / "out")


def _small_gguf() -> bytes:
    words = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": [*"abcdef", "ab"],
        "tokenizer.ggml.token_type": [1] * 7,
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": 2,
    }
    with tempfile.TemporaryDirectory() as name:
        tensors = minikv.random_tensors(SMALL, 0)
        return write_gguf(Path(name) / "a.gguf", SMALL, tensors, words).read_bytes()


WEIGHTS = _small_weights()
KINDS: list[Callable[[random.Random, Path], None]] = [configuration, tokenizer, safetensors]
if importlib.util.find_spec("gguf"):
    GGUF = _small_gguf()
    KINDS.append(gguf)


def outcome(number: int, seed: int, kinds: Any = KINDS) -> tuple[str, str]:
    """Run a case: its kind, and ``"loaded"`` or ``"refused"``; raises `Failed` otherwise."""
    kind = kinds[number % len(kinds)]
    rng = random.Random(f"{seed} {number}")
    with tempfile.TemporaryDirectory() as name:
        try:
            kind(rng, Path(name))
        except minikv.MinikvError as error:
            said = str(error)
            if "\n" in said or not 0 < len(said) < 1000:
                raise Failed(f"refused in {len(said)} characters: {said!r:.300}") from None
            return kind.__name__, "refused"
        except Failed:
            raise
        except BaseException:
            raise Failed(traceback.format_exc()) from None
    return kind.__name__, "loaded"


# Many cases, watched


def worker(
    numbers: range, seed: int, now: Any, results: Any, megabytes: int, kinds: Any = KINDS
) -> None:
    """Run cases one after the other; `now` says which, `results` gets counts and failures."""
    tempfile.tempdir = "/dev/shm" if os.path.isdir("/dev/shm") else None
    limit = 4 * megabytes * 2**20  # of address space, which mapped libraries count in
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # panics of the tokenizers package print there
    counts: Counter[str] = Counter()
    failures = []
    for number in numbers:
        now.value = number
        try:
            counts[" ".join(outcome(number, seed, kinds))] += 1
        except Failed as error:
            failures.append((number, str(error)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    results.put((counts, failures, peak))


def fuzz(
    count: int, seed: int, processes: int, seconds: float, megabytes: int, kinds: Any = KINDS
) -> tuple[Counter[str], list[tuple[int, str]], float]:
    """Run `count` cases in processes of their own.

    Returns
    -------
    counts, failures, peak
        How many of each kind and outcome; number and reason of each failure; and the most
        megabytes that a process held.
    """
    context = multiprocessing.get_context("forkserver")  # of a process without threads
    counts: Counter[str] = Counter()
    failures: list[tuple[int, str]] = []
    peak = 0.0
    waiting = [range(first, min(first + _CHUNK, count)) for first in range(0, count, _CHUNK)]
    running: list[_Run] = []
    while waiting or running:
        while waiting and len(running) < processes:
            running.append(_Run(context, waiting.pop(0), seed, megabytes, kinds))
        time.sleep(0.02)
        for run in list(running):
            ended = run.ended(seconds)
            if ended is None:
                continue
            running.remove(run)
            told, failed, held, again = ended
            counts += told
            failures += failed
            peak = max(peak, held)
            waiting += [part for part in again if len(part)]
    if peak > megabytes:
        failures.append((-1, f"a process held {peak:.0f} MB, expected at most {megabytes}"))
    return counts, failures, peak


class _Run:
    """A process that works on a range of cases, and what it was last seen doing."""

    def __init__(self, context: Any, numbers: range, seed: int, megabytes: int, kinds: Any) -> None:
        self._numbers = numbers
        self._now = context.Value("q", numbers.start, lock=False)
        self._results = context.Queue()
        arguments = (numbers, seed, self._now, self._results, megabytes, kinds)
        self._process = context.Process(target=worker, args=arguments)
        self._seen = numbers.start
        self._since = time.monotonic()
        self._process.start()

    def ended(self, seconds: float) -> Any:
        """None while it works; else counts, failures, peak, and ranges of cases to be run again.

        Of a process that died or hung the cases before that one are run again, for their counts.
        """
        if not self._results.empty():
            told = self._results.get()
            self._process.join()
            return (*told, [])
        number = self._now.value
        if number != self._seen:
            self._seen = number
            self._since = time.monotonic()
        died = not self._process.is_alive()
        if died and not self._results.empty():
            return None  # it ended between the two looks
        if not died and time.monotonic() - self._since < seconds:
            return None
        why = f"its process died ({self._process.exitcode})" if died else f"more than {seconds} s"
        self._process.kill()
        self._process.join()
        again = [range(self._numbers.start, number), range(number + 1, self._numbers.stop)]
        return Counter(), [(number, why)], 0.0, again


def main(arguments: list[str] | None = None) -> int:
    """The command: 0 if no case failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=30.0, help="that a case may take")
    parser.add_argument("--megabytes", type=int, default=1024, help="that a process may hold")
    parser.add_argument("--only", type=int, help="run this case alone, in this process")
    args = parser.parse_args(arguments)
    if args.only is not None:
        print(*outcome(args.only, args.seed))
        return 0
    start = time.monotonic()
    counts, failures, peak = fuzz(
        args.count, args.seed, args.processes, args.seconds, args.megabytes
    )
    for key, number in sorted(counts.items()):
        print(f"{number:>9,}  {key}")
    print(
        f"{sum(counts.values()) + len(failures):>9,}  cases of seed {args.seed} in "
        f"{time.monotonic() - start:.0f} s, at most {peak:.0f} MB: {len(failures)} failed"
    )
    for number, reason in failures[:20]:
        print(f"\ncase {number}: {reason}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
