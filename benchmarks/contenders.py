"""What is measured: each contender in a process of its own, which `benchmarks.peers` starts.

    python -m benchmarks.contenders serve NAME PATH         # a turn for each line read
    python -m benchmarks.contenders fresh NAME PATH LENGTH  # one start, for load time and memory

A contender loads a model from `PATH`, a folder or a GGUF file, and then does three things: `start`
reads a prompt, `step` reads one token, `crop` goes back to the end of the prompt. Nothing but the
standard library is imported before it is known who runs, because imports count as memory.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LLAMA_CPP = "llama.cpp "  # and what its weights are
HALVED = "exact/numba bfloat16"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = CLOCKS[os.environ.get("MINIKV_BENCHMARK_CLOCK", "wall")]
CLEAR = Path("/proc/self/clear_refs")  # Linux
AFTER_PROMPT = 16  # tokens that a fresh process decodes
ROOM = 64  # tokens that a context may grow beyond its prompt


def prompt(length: int, vocab: int) -> list[int]:
    """Token ids that are the same for every contender."""
    return [(7919 * i + 13) % vocab for i in range(length)]


class MiniKV:
    """minikv's decoder, with its full cache or another policy's."""

    def __init__(self, arithmetic: str, backend: str, path: str) -> None:
        import minikv

        if backend != "numpy":
            __import__(backend)  # NumPy would take its place
        self.model = minikv.load(path, arithmetic, backend)
        self.vocab = self.model.config.vocab_size

    def start(self, ids: list[int], policy: str = "full") -> tuple[Any, int]:
        cache = self.model.new_cache()
        if policy != "full":
            from minikv.experiments.policies import policy_cache

            cache = policy_cache(policy, self.model.weights)
        return cache, int(self.model.forward([ids], [cache])[0].argmax())

    def step(self, cache: Any, token: int) -> int:
        return int(self.model.forward([[token]], [cache])[0].argmax())

    def crop(self, cache: Any, length: int) -> None:
        """Go back, but not with a policy that evicts: it would hold fewer tokens from then on."""
        if not hasattr(cache, "priority") and cache.seen > length:
            cache.truncate(length)


class Transformers:
    """``LlamaForCausalLM`` in float32 with its `DynamicCache`, called without ``generate``."""

    def __init__(self, path: str) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads())
        self.torch, self.new_cache = torch, transformers.DynamicCache
        self.model = transformers.LlamaForCausalLM.from_pretrained(path, dtype=torch.float32)
        self.model.eval()
        self.vocab = self.model.config.vocab_size

    def forward(self, ids: list[int], cache: Any) -> int:
        with self.torch.inference_mode():
            out = self.model(
                input_ids=self.torch.tensor([ids]),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            return int(out.logits[0, -1].argmax())

    def start(self, ids: list[int]) -> tuple[Any, int]:
        cache = self.new_cache(config=self.model.config)
        return cache, self.forward(ids, cache)

    def step(self, cache: Any, token: int) -> int:
        return self.forward([token], cache)

    def crop(self, cache: Any, length: int) -> None:
        if extra := cache.get_seq_length() - length:
            cache.crop(-extra)


class LlamaCpp:
    """llama.cpp through the C interface that llama-cpp-python binds.

    A text has a context of its own. Beside float32 weights its cache is float32 too; else the
    cache is what llama.cpp chooses, float16.
    """

    def __init__(self, kind: str, path: str) -> None:
        import llama_cpp

        self.api, self.kind = llama_cpp, kind
        self._silence = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._silence, None)
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab = llama_cpp.llama_vocab_n_tokens(vocabulary)

    def forward(self, context: Any, ids: list[int]) -> int:
        import numpy as np

        tokens = (self.api.llama_token * len(ids))(*ids)
        batch = self.api.llama_batch_get_one(tokens, len(ids))  # logits of the last token alone
        if failed := self.api.llama_decode(context, batch):
            raise RuntimeError(f"llama_decode returned {failed}")
        logits = self.api.llama_get_logits_ith(context, -1)
        return int(np.ctypeslib.as_array(logits, (self.vocab,)).argmax())

    def start(self, ids: list[int]) -> tuple[Any, int]:
        settings = self.api.llama_context_default_params()
        settings.n_ctx = settings.n_batch = len(ids) + ROOM
        settings.n_threads = settings.n_threads_batch = threads()
        if self.kind == "float32":
            settings.type_k = settings.type_v = self.api.GGML_TYPE_F32
        context = Context(self, self.api.llama_init_from_model(self.model, settings))
        return context, self.forward(context.pointer, ids)

    def step(self, context: Context, token: int) -> int:
        return self.forward(context.pointer, [token])

    def crop(self, context: Context, length: int) -> None:
        memory = self.api.llama_get_memory(context.pointer)
        self.api.llama_memory_seq_rm(memory, 0, length, -1)


class Context:
    """A context of llama.cpp, freed when nobody holds it any more, and before its model's owner."""

    def __init__(self, owner: LlamaCpp, pointer: Any) -> None:
        self.owner, self.pointer = owner, pointer

    def __del__(self) -> None:
        self.owner.api.llama_free(self.pointer)


class Bare:
    """The weights' products and nothing else: one row, or all rows, by every matrix in float32."""

    def __init__(self, path: str) -> None:
        import numpy as np

        from minikv import ModelConfig
        from minikv.weights import load_tensors

        config = ModelConfig.from_file(Path(path) / "config.json")
        tensors = load_tensors(Path(path), config)
        self.vocab, self.linspace = config.vocab_size, np.linspace
        self.head = tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"])
        self.blocks = [w for n, w in tensors.items() if n.startswith("model.l") and w.ndim == 2]
        self.made: dict[tuple[int, int], Any] = {}
        self.calls: dict[str, Callable[[], object]] = {}
        self.layers = config.num_hidden_layers

    def work(self, what: str) -> Callable[[], object]:
        """Work whose rate is a roof of this machine."""
        if what not in self.calls:
            from . import roofline

            block = self.blocks[: len(self.blocks) // self.layers]
            self.calls[what] = roofline.work(what, [*self.blocks, self.head], block)
        return self.calls[what]

    def rows(self, count: int, width: int) -> Any:
        if (count, width) not in self.made:
            values = self.linspace(-1, 1, count * width, dtype="float32")
            self.made[count, width] = values.reshape(count, width)
        return self.made[count, width]

    def products(self, rows: int) -> int:
        for w in self.blocks:
            self.rows(rows, w.shape[1]) @ w.T
        self.rows(1, self.head.shape[1]) @ self.head.T  # logits of the last row alone
        return 0

    def start(self, ids: list[int]) -> tuple[Any, int]:
        return None, self.products(len(ids))

    def step(self, state: None, token: int) -> int:
        return self.products(1)

    def crop(self, state: None, length: int) -> None:
        """Nothing is kept."""


def make(name: str, path: str) -> Any:
    """Load a contender; ImportError where what it computes with is not installed."""
    if name == "transformers":
        return Transformers(path)
    if name == "bare":
        return Bare(path)
    if name.startswith(LLAMA_CPP):
        return LlamaCpp(name.removeprefix(LLAMA_CPP), path)
    return MiniKV(*name.split()[0].split("/"), path)


def threads() -> int:
    return int(os.environ["OMP_NUM_THREADS"])


def import_alone(name: str) -> None:
    """Import what a contender imports; the memory of that is no model's."""
    if name.startswith(LLAMA_CPP):
        __import__("llama_cpp")
    elif name == "transformers":
        __import__("torch")
        __import__("transformers.models.llama.modeling_llama")  # loaded on first use
    else:
        __import__("minikv")
        if "/numba" in name:
            arithmetic = name.partition("/")[0]
            __import__(f"minikv.backends.numba_{arithmetic}")


def versions(name: str) -> dict[str, str]:
    """Libraries that this process computes with."""
    if name == "transformers":
        import torch
        import transformers

        capability = torch.backends.cpu.get_cpu_capability()
        return {
            "torch": f"{torch.__version__} ({capability}, {torch.get_num_threads()} threads)",
            "transformers": transformers.__version__,
        }
    if name.startswith(LLAMA_CPP):
        import llama_cpp

        about = llama_cpp.llama_print_system_info().decode().strip(" |")
        return {"llama-cpp-python": f"{llama_cpp.__version__} ({about})"}
    if "/numba" in name:
        import numba

        return {
            "numba": f"{numba.__version__} ({numba.threading_layer()}, "
            f"{numba.get_num_threads()} threads)"
        }
    import numpy as np

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    found = {"numpy": np.__version__, "BLAS": f"{blas['name']} {blas['version']}"}
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return found
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    for pool in pools[:1]:
        found["BLAS"] += f" ({pool.get('architecture')}, {pool['num_threads']} threads)"
    return found


def timed(step: Callable[[], Any], repeats: int) -> float:
    """Median seconds of a call, after one call that is not counted."""
    step()
    seconds = []
    for _ in range(repeats):
        start = clock()
        step()
        seconds.append(clock() - start)
    return statistics.median(seconds)


def greedy(contender: Any, length: int, tokens: int) -> list[int]:
    """Greedy tokens after a prompt."""
    state, token = contender.start(prompt(length, contender.vocab))
    out = [token]
    while len(out) < tokens:
        out.append(contender.step(state, out[-1]))
    return out


def serve(name: str, path: str) -> None:
    """Answer one line of JSON for each line of the controller: seconds a token or a prefill."""
    try:
        contender = make(name, path)
    except ImportError as error:
        print(json.dumps({"missing": f"{name}: {error}"}), flush=True)
        return
    tokens = greedy(contender, length=64, tokens=24)
    ready = {"greedy": tokens, "versions": versions(name), "vocab": contender.vocab}
    print(json.dumps(ready), flush=True)
    texts: dict[str, tuple[Any, int]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(turn(contender, texts, request)), flush=True)


def turn(contender: Any, texts: dict[str, tuple[Any, int]], request: dict[str, Any]) -> float:
    """Seconds of a task: a token, a prompt, or a piece of work whose rate is wanted.

    ``"decode 512"``, or ``"decode 512 h2o@256"`` with a policy of minikv's; ``"prefill 512"``;
    ``"rate reading"``, see `benchmarks.roofline`. Texts are kept from turn to turn.
    """
    kind, what, *policy = request["task"].split()
    if kind == "rate":
        return timed(contender.work(what), request["tokens"])
    length = int(what)
    ids = prompt(length, contender.vocab)
    if kind == "prefill":
        begin = clock()
        contender.start(ids)
        return clock() - begin
    if request["task"] not in texts:
        texts[request["task"]] = contender.start(ids, *policy)
    text = list(texts[request["task"]])
    contender.crop(text[0], length)

    def step() -> None:
        text[1] = contender.step(*text)

    return timed(step, request["tokens"])


def fresh(name: str, path: str, length: int) -> None:
    """Load, read a prompt and decode; without a prompt only import. Prints peaks in bytes."""
    out: dict[str, Any] = {}
    import_alone(name)
    if not length:
        print("first token", flush=True)
        out["processor"] = time.process_time()
    if length:
        begin = time.perf_counter()
        contender = make(name, path)
        out["load"] = time.perf_counter() - begin
        if CLEAR.exists():
            out["peak"] = peak()
            CLEAR.write_text(
                "5"
            )  # the kernel forgets the peak, so that the next is without loading
        state, token = contender.start(prompt(length, contender.vocab))
        print("first token", flush=True)  # the controller looks at its clock
        out["processor"] = time.process_time()
        for _ in range(AFTER_PROMPT):
            token = contender.step(state, token)
        if name == "float32/numpy":
            out["weights"] = contender.model.config.num_parameters * 4
            out["cache"] = state.nbytes
    if length and CLEAR.exists():
        (line,) = [x for x in Path("/proc/self/status").read_text().split("\n") if "VmHWM" in x]
        out["running"] = int(line.split()[1]) * 1024
    out["peak"] = max(peak(), out.get("peak", 0))
    print(json.dumps(out))


def peak() -> int:
    """Bytes that were resident at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def random_folder(folder: str) -> None:
    """SmolLM-135M's shape with random weights."""
    import minikv
    from minikv.weights import save_folder

    config = minikv.ModelConfig(49152, 576, 1536, 30, 9, 3, 64, 8192)
    save_folder(Path(folder), config, minikv.random_tensors(config, seed=0))


def bfloat16_folder(source: str, folder: str) -> None:
    """A model whose weights are cut to bfloat16, as checkpoints are published."""
    from minikv import ModelConfig
    from minikv.weights import load_tensors

    config = (Path(source) / "config.json").read_text(encoding="utf-8")
    tensors = load_tensors(Path(source), ModelConfig.from_file(Path(source) / "config.json"))
    header = {}
    start = 0
    for name, tensor in tensors.items():
        stop = start + 2 * tensor.size
        header[name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(folder).mkdir()
    (Path(folder) / "config.json").write_text(config, encoding="utf-8")
    with open(Path(folder) / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.view("<u2")[..., 1::2].tobytes())


def main() -> None:
    command, *rest = sys.argv[1:]
    if command == "serve":
        serve(*rest)
    elif command == "fresh":
        fresh(rest[0], rest[1], int(rest[2]))
    elif command == "bfloat16":
        bfloat16_folder(*rest)
    else:
        random_folder(*rest)


if __name__ == "__main__":
    main()
