"""The state of the field: what conform says of public decoders, run here, with versions.

    python -m tests.conform.field                 # all of it, into figures/field.json
    python -m tests.conform.field --resume        # what of these versions is not there yet
    python -m tests.conform.field --only llama    # those whose name has this; nothing is written
    python -m tests.conform.field --resume --only llama   # those again, and the others kept

Tiny models with random weights, so that all of it runs in minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import minikv
from minikv.conform import Report, Word, conform
from minikv.conform.targets.minikv_model import MinikvTarget
from minikv.conform.targets.transformers_folder import TransformersTarget

FIGURES = Path(__file__).parent / "figures" / "field.json"
SIZE = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
}
MISSING = "not installed"
WINDOW = 9
TOKENS = 24  # of a text
BEYOND_WINDOWS = 32  # more than three layers of windows reach back
SLIDES = ["sliding_attention", "full_attention", "sliding_attention"]
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", SIZE),
    "qwen3": (
        "Qwen3Config",
        "Qwen3ForCausalLM",
        SIZE | {"sliding_window": WINDOW, "use_sliding_window": True, "layer_types": SLIDES},
    ),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        SIZE | {"sliding_window": WINDOW, "layer_types": SLIDES},
    ),
    "mistral": ("MistralConfig", "MistralForCausalLM", SIZE | {"sliding_window": WINDOW}),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {"vocab_size": 97, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256},
    ),
}


def tiny(family: str, attention: str, dtype: str) -> Any:
    """A random model of transformers in which attention matters."""
    import torch
    import transformers

    config_name, model_name, numbers = FAMILIES[family]
    config = getattr(transformers, config_name)(**numbers)
    config._attn_implementation = attention
    torch.manual_seed(0)
    model = getattr(transformers, model_name)(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() != 2:
                continue
            fan_in = weight.shape[0 if family == "gpt2" else 1]
            scale = 1.2 / fan_in**0.5
            if "embed" in name or "wte" in name:
                scale = 1.0
            if "wpe" in name:
                scale = 0.3
            weight.copy_(torch.randn_like(weight) * scale)
    return model.to(getattr(torch, dtype))


PRESSES: dict[str, dict[str, Any]] = {
    "StreamingLLMPress": {},
    "SnapKVPress": {"window_size": 4},  # the prompt must be longer than it
    "PyramidKVPress": {"window_size": 4},
    "TOVAPress": {},
    "KnormPress": {},
    "KeyDiffPress": {},
    "LagKVPress": {},
    "RandomPress": {},
    "ObservedAttentionPress": {},
    "ExpectedAttentionPress": {},
    "NonCausalAttnPress": {},
    "LeverageScorePress": {},
    "CompactorPress": {"sink_size_start": 1, "sink_size_end": 1},  # likewise
}
"""The presses of kvpress 0.5.5 that need a share and nothing else: no download, no training."""


class Pressed(TransformersTarget):
    """transformers with a press of kvpress, which compresses the prompt to a budget."""

    def __init__(self, model: Any, press: str) -> None:
        super().__init__(model)
        self.press = press
        self.policies = (press,)
        self.grows = self.policies
        self.rolling = self.policies  # what is kept differs from head to head

    def wide(self) -> Pressed:
        """In float64."""
        twin = super().wide()
        return Pressed(twin.model, self.press)

    def new_cache(self, policy: str | None = None, budget: int | None = None) -> Any:
        """A cache that remembers how its prompt is to be pressed."""
        cache = super().new_cache()
        cache.pressed = (policy, budget)
        return cache

    def stored(self, cache: Any) -> int:
        """Rows of the first layer."""
        return int(cache.layers[0].keys.shape[2])

    def step(self, ids: Any, cache: Any) -> np.ndarray:
        """The first call is the prompt's."""
        import kvpress

        policy, budget = cache.pressed
        if policy is None or cache.get_seq_length():
            position = getattr(cache, "true_length", cache.get_seq_length())
            cache.true_length = position + len(ids)
            import torch

            where = torch.arange(position, position + len(ids))[None]
            return self._run(ids, past_key_values=cache, use_cache=True, position_ids=where)[0]
        cache.true_length = len(ids)
        ratio = max(0.0, 1 - budget / len(ids))
        press = getattr(kvpress, policy)(compression_ratio=ratio, **PRESSES[policy])
        with press(self.model):
            return super().step(ids, cache)


def contenders() -> Iterator[tuple[str, dict[str, Any], Callable[[], object]]]:
    """Name, settings of the run, and what makes the target."""
    yield (
        "transformers gpt2 sdpa float32 dynamic, no position ids",
        {"axes": ["left-padding", "left-padding-cached"]},
        lambda: TransformersTarget(tiny("gpt2", "sdpa", "float32"), positions="default"),
    )
    for press in PRESSES:
        yield (
            f"kvpress {press} on llama eager float32",
            {"axes": ["budget"]},
            lambda p=press: Pressed(tiny("llama", "eager", "float32"), p),
        )
    for arithmetic in ("float32", "exact"):
        yield f"minikv llama {arithmetic} numpy", {}, lambda a=arithmetic: own(a, "numpy")
    for dtype, attention, cache in (
        ("float32", "sdpa", "dynamic"),
        ("float32", "eager", "dynamic"),
        ("bfloat16", "sdpa", "dynamic"),
        ("bfloat16", "eager", "dynamic"),
        ("float32", "sdpa", "static"),
    ):
        for family in FAMILIES:
            yield (
                f"transformers {family} {attention} {dtype} {cache}",
                {"length": BEYOND_WINDOWS} if family == "mistral" else {},
                lambda f=family, a=attention, d=dtype, c=cache: TransformersTarget(
                    tiny(f, a, d), c
                ),
            )
    for arithmetic in ("float32", "exact"):
        yield f"minikv llama {arithmetic} numba", {}, lambda a=arithmetic: own(a, "numba")
    for kind, store in (("F32", "float32"), ("F32", "float16"), ("Q4_0", "float16")):
        yield (
            f"llama.cpp llama {kind}, K and V {store}",
            {},
            lambda k=kind, s=store: llama_cpp_target(k, s),
        )


def llama_cpp_target(kind: str, store: str) -> object:
    """llama.cpp on minikv's own small model, its weights as they are or quantised."""
    from minikv.build import random_tensors
    from minikv.conform.targets.llama_cpp import CONTEXT, target
    from tests.gguf_writer import write_gguf

    tensors = random_tensors(OWN, 0, 1.2)
    fields = {"tokenizer.ggml.model": "none", "llama.context_length": CONTEXT}
    with tempfile.TemporaryDirectory() as folder:
        path = write_gguf(Path(folder) / "a.gguf", OWN, tensors, fields, kind=kind)
        made = target(str(path), store)
    if made.reference is not None:
        made.reference = lambda: minikv.random_model(OWN, 0, "float64", 1.2)  # type: ignore[method-assign]  # the file is gone
    return made


OWN = minikv.tiny_config(hidden_size=64, intermediate_size=96, head_dim=16, num_hidden_layers=3)


def own(arithmetic: str, backend: str) -> MinikvTarget:
    """minikv's own small model."""

    def made(wanted: str, where: str = "numpy") -> minikv.Model:
        return minikv.random_model(OWN, 0, wanted, 1.2, where)

    return MinikvTarget(made(arithmetic, backend), made)


def row(name: str, report: Report) -> dict[str, Any]:
    """What the table says of a target."""
    tested = [one for one in report.verdicts if one.word is not Word.NOT_TESTED]
    counts = {str(word): sum(one.word is word for one in tested) for word in Word}
    return {
        "target": name,
        "axes": len(tested),
        **{word: count for word, count in counts.items() if count},
        "largest units": max((one.units for one in tested if one.word is not Word.BUG), default=0),
        "bugs": [f"{one.axis}: {one.evidence}" for one in report.bugs],
        "refused": refused(report),
        "reuse": reuse(report),
        "undecided axes": [one.axis for one in tested if one.word is Word.UNDECIDED],
        "in float64": report.measured.get("largest difference in the twin"),
    }


def refused(report: Report) -> str:
    """Budgets that policies refuse, if they were asked."""
    told = [one.evidence for one in report.verdicts if one.axis == "budget"]
    return "; ".join(part for one in told for part in one.split("; ") if "refuses" in part)


def reuse(report: Report) -> str:
    """How much of a prefix was reused, if any was."""
    told = [one.evidence for one in report.verdicts if one.axis == "warm-prefix"]
    return "; ".join(one for one in told if "were reused" in one)


def main(argv: list[str] | None = None) -> int:
    """Run what is asked for; all of it is written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="", help="targets whose name has this")
    parser.add_argument("--resume", action="store_true", help="keep what was run, and add to it")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(1)
    known = list(contenders())
    rows = []
    if options.resume:
        rows = before([name for name, _, _ in known if not anew(name, options.only)])
    done = {row["target"] for row in rows}
    for name, settings, make in known:
        if options.only not in name or name in done:
            continue
        try:
            chosen = {"effort": "quick", "length": TOKENS, "shrink": False} | settings
            report = conform(make(), **chosen)
            rows.append(row(name, report))
        except ImportError as error:
            rows.append({"target": name, "axes": 0, "bugs": [], "missing": str(error)})
        print(json.dumps(rows[-1]), flush=True)
        if options.resume or not options.only:
            write(rows)
    return 0


def anew(name: str, only: str) -> bool:
    """Whether a target was asked for by name, and is run again even if it was run."""
    return bool(only) and only in name


def before(names: list[str]) -> list[dict[str, Any]]:
    """Rows of these names and the same versions, but for what was not installed then."""
    if not FIGURES.exists():
        return []
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    now = versions()
    for package, version in figures["versions"].items():
        if version not in (now[package], MISSING):
            return []
    return [one for one in figures["rows"] if one["target"] in names and "missing" not in one]


def write(rows: list[dict[str, Any]]) -> None:
    """What the table is made from, in the order of the contenders."""
    order = [name for name, _, _ in contenders()]
    rows = sorted(rows, key=lambda row: order.index(row["target"]))
    FIGURES.parent.mkdir(exist_ok=True)
    figures = {"date": str(datetime.date.today()), "versions": versions(), "rows": rows}
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Of what was run."""
    import importlib.metadata as metadata

    found = {"python": platform.python_version()}
    for package in ("numpy", "torch", "transformers", "kvpress", "numba", "llama-cpp-python"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = MISSING
    return found


if __name__ == "__main__":
    sys.exit(main())
