"""What docs/backends.md, parallel.md and experiments.md tell of the code and of kept tables."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from types import SimpleNamespace

import cli_page
import numpy as np
import pytest
from bits import assert_same_bits, same_bits

import minikv
from benchmarks import experiments, gpu
from minikv.arithmetic import Arithmetic, Float32, NumpyExact, Sight, elementary
from minikv.backends import choose, get_backend
from minikv.caches import POLICIES, make_cache
from minikv.cli import main, make_parser
from minikv.errors import InputError
from minikv.paper.claim import Verdict
from minikv.paper.claims import figure_4
from minikv.parallel import Comm, load_rank, run_threads, split_sums
from minikv.parallel.context import Dealt, over_context
from minikv.parallel.cost import Network, said_per_token, seconds_per_token
from minikv.parallel.sockets import PROBE_SECONDS, Hub, Line, probe
from minikv.parallel.stages import make_stage
from minikv.parallel.state import check_policy
from minikv.shapes import SHAPES, shape
from minikv.verify import THEOREMS
from minikv.verify.blocks import STATEMENTS
from minikv.verify.texts import real_cases
from minikv.weights.folder import FolderTensors
from minikv.weights.packed import Packed

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "fixtures" / "tiny"
WORDS = {2: "two", 3: "three", 5: "five", 6: "six", 9: "nine"}
SMOLLM = shape("smollm2-135m")
needs_numba = "needs the extra `numba`, not installed here"


def told(page: str) -> str:
    """A page's words."""
    return " ".join((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8").split())


BACKENDS = told("backends")
PARALLEL = told("parallel")
EXPERIMENTS = told("experiments")


# docs/backends.md


def test_three_commands_take_a_backend_and_generate_takes_float32():
    commands = cli_page.commands(make_parser())
    found = {name for name, one in commands.items() if "--backend" in one._option_string_actions}
    assert found == {"generate", "chat", "fingerprint"}
    words = "`--backend` on the command line of `generate`, `chat` and `fingerprint`"
    assert words in BACKENDS
    given = make_parser().parse_args(["generate", "Hello", "--backend", "numba"])
    assert given.arithmetic == "float32"


@pytest.mark.backends
@pytest.mark.parametrize(
    "backend",
    ["numba", *(pytest.param(name, marks=pytest.mark.slow) for name in ("torch", "jax"))],
)
def test_float32_on_another_library_has_bits_of_its_own(backend):
    pytest.importorskip(backend, reason=f"needs {backend}, not installed here")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 1000), dtype=np.float32)
    matrix = rng.standard_normal((40, 1000), dtype=np.float32)
    products = []
    for name in ("numpy", "numpy", backend):
        arithmetic = get_backend(name, "float32")
        weight = arithmetic.weight(arithmetic.xp.asarray(matrix), "w")
        products.append(np.asarray(arithmetic.linear(arithmetic.xp.asarray(x), weight)))
    again, expected, got = products
    assert_same_bits(again, expected)
    assert not same_bits(got, expected)


@pytest.mark.slow
@pytest.mark.backends
def test_jax_makes_the_smallest_float64_numbers_0():
    pytest.importorskip("jax", reason="needs jax, not installed here")
    xp = get_backend("jax", "float64").xp
    small = xp.asarray([2.0**-1000]) * xp.asarray([2.0**-22, 2.0**-23])
    assert small.dtype == "float64"
    assert small.tolist() == [2.0**-1022, 0.0]


@pytest.mark.backends
@pytest.mark.parametrize("policy", ["h2o", "snapkv", "tova"])
def test_a_policy_that_ranks_keys_asks_once_a_layer_and_block_of_queries(policy, monkeypatch):
    strict = pytest.importorskip("array_api_strict", reason="needs it, not installed here")
    model = minikv.random_model(minikv.tiny_config(), 3, "exact", backend="array_api_strict")
    cache = model.new_cache(policy, budget=8)
    array = type(strict.asarray(0.0))
    asked = []

    def counted(name):
        ask = getattr(array, name)

        def noted(*given, **more):
            asked.append(name)
            return ask(*given, **more)

        return noted

    for name in ("__bool__", "__float__", "__int__", "__index__", "__array__"):
        if hasattr(array, name):
            monkeypatch.setattr(array, name, counted(name))
    layers = len(model.layers)
    model.forward([range(40)], [cache])
    assert len(asked) == layers * math.ceil(40 / Arithmetic.query_block) == 2 * layers
    asked.clear()
    model.forward([[5]], [cache])
    assert len(asked) == (0 if policy == "snapkv" else layers)


@pytest.mark.slow
@pytest.mark.night
def test_the_benchmark_of_a_gpu_has_fingerprints_theorems_and_timings(capsys):
    """On the processor, beside itself."""
    argv = ["--model", str(TINY), "--backend", "numpy", "--rounds", "1", "--prompt", "8"]
    assert gpu.main(argv) == 0
    said = capsys.readouterr().out
    assert said.count("fingerprint of text ") == 3 * len(real_cases(str(TINY)))
    assert re.findall(r"(?m)^(T\d+): holds$", said) == list(THEOREMS)
    timings = ["exact", "float32"]
    for what in ("prefill of 8", "a decoded token"):
        assert re.findall(rf"(?m)^(\w+) +{what} .*ratio", said) == timings


OPENMP = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.backends
@pytest.mark.parametrize("given", [{}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}])
def test_openmp_waits_as_the_user_says_or_as_long_as_the_page_says(given, monkeypatch):
    pytest.importorskip("numba", reason=needs_numba)
    seen = []

    def looking(context):
        seen.append({name: os.environ[name] for name in OPENMP if name in os.environ})
        return NumpyExact(context)

    monkeypatch.setitem(choose._COMPILED, "exact", looking)
    for name in OPENMP:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    get_backend("numba", "exact", 64)
    (settings,) = seen
    if given:
        assert settings == given
    else:
        assert settings["OMP_WAIT_POLICY"] == "passive"
        turns = int(settings["GOMP_SPINCOUNT"])
        assert f"wait awake for {turns:,} turns of a loop" in BACKENDS


@pytest.mark.backends
def test_more_tokens_than_the_page_says_go_through_tiles_of_its_shape_and_through_no_blas(
    monkeypatch,
):
    pytest.importorskip("numba", reason=needs_numba)
    from minikv.backends import numba_exact

    few = numba_exact._FEW
    tile = f"{numba_exact._TILE} rows by {numba_exact._PANEL} outputs"
    widened = numba_exact._PANEL * numba_exact._PANELS
    words = f"Calls of more than {few} tokens take their products in tiles of {tile}, for which a"
    assert f"{words} thread widens {widened} rows of a matrix at a time" in BACKENDS
    asked = []
    for name in ("_linear", "_linear_many", "_attend", "_attend_many"):
        kernel = getattr(numba_exact, name)

        def noted(*given, name=name, kernel=kernel):
            asked.append(name)
            return kernel(*given)

        monkeypatch.setattr(numba_exact, name, noted)
    monkeypatch.setattr(np, "matmul", None)
    model = minikv.random_model(minikv.tiny_config(), 0, "exact", backend="numba")
    model.forward([range(few)], logits="none")
    assert set(asked) == {"_linear", "_attend"}
    asked.clear()
    model.forward([range(few + 1)], logits="none")
    assert set(asked) == {"_linear_many", "_attend_many"}


@pytest.mark.backends
def test_exp_of_float32_on_numba_is_as_near_as_the_page_says():
    pytest.importorskip("numba", reason=needs_numba)
    assert "within 1.1 units in the last place" in BACKENDS
    x = np.random.default_rng(0).uniform(-87, 88, 100_000).astype(np.float32)
    true = elementary.exp(x.astype(np.float64))
    unit = np.spacing(true.astype(np.float32)).astype(np.float64)

    def furthest(found: np.ndarray) -> float:
        return float((abs(found - true) / unit).max())

    ours = get_backend("numba", "float32").exp(x)
    assert 0.5 < furthest(ours) < 1.1
    beyond = np.nextafter(np.nextafter(ours, np.float32(np.inf)), np.float32(np.inf))
    assert furthest(beyond) > 1.1


def short(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Numbers of 12 bits: a product of two, added to a float32, is exact in float64."""
    return (rng.integers(-(2**11), 2**11, shape) * 2.0**-11).astype(np.float32)


def chain(x: np.ndarray, w: np.ndarray) -> np.float32:
    """Fused multiply-adds, first to last: each is rounded once."""
    total = 0.0
    for a, b in zip(x.tolist(), w.tolist(), strict=True):
        total = float(np.float32(total + a * b))
    return np.float32(total)


def chains(x: np.ndarray, w: np.ndarray, block: int) -> np.float32:
    """Chains over so many inputs, added first to last."""
    total = np.float32(0)
    for start in range(0, len(x), block):
        part = slice(start, start + block)
        total += chain(x[part], w[part])
    return total


@pytest.mark.backends
def test_each_sum_of_float32_on_numba_has_the_order_of_the_page():
    pytest.importorskip("numba", reason=needs_numba)
    from minikv.backends.numba_float32 import BLOCK

    assert f"chains of fused multiply-adds over {BLOCK} inputs, added first to last" in BACKENDS
    rng = np.random.default_rng(0)
    ours = get_backend("numba", "float32")
    width = 2 * BLOCK + 50
    x = short(rng, 2, width)
    w = short(rng, 3, width)
    expected = np.array([[chains(row, column, BLOCK) for column in w] for row in x])
    assert_same_bits(ours.linear(x, ours.weight(w, "w")), expected)
    backwards = [[chains(row[::-1], column[::-1], BLOCK) for column in w] for row in x]
    assert not same_bits(np.array(backwards), expected)
    single = np.array([[chain(row, column) for column in w] for row in x])
    assert not same_bits(single, expected)
    scores = ours.scores(x[:, None], w[:, None], 0.5)  # half of a number is exact
    assert_same_bits(scores, single[None] / 2)
    pattern = abs(x)
    sums = ours.weighted_sum(pattern[None], np.ascontiguousarray(w.T)[:, None])
    expected = np.array([[chain(row, column) for column in w] for row in pattern])
    assert_same_bits(sums, expected[:, None])
    exps = ours.exp(x - x.max(axis=1, keepdims=True))
    multiples = np.rint(exps.astype(np.float64) * 2.0**42)  # integers: no order matters
    inverse = 1 / (multiples.sum(axis=1, keepdims=True) * 2.0**-42)
    assert_same_bits(ours.softmax(x[None]), (exps * inverse.astype(np.float32))[None])
    lanes = np.zeros((2, -(-width // 16) * 16))
    lanes[:, :width] = x.astype(np.float64) ** 2
    sixteen = np.cumsum(lanes.reshape(2, -1, 16), axis=1)[:, -1]
    squares = np.cumsum(sixteen, axis=1)[:, -1:]
    assert_same_bits(ours.mean_square(x), (squares / width).astype(np.float32))


@pytest.mark.backends
def test_row_invariant_times_the_matrices_of_smollm2_in_as_many_turns_as_the_page_says(monkeypatch):
    pytest.importorskip("numba", reason=needs_numba)
    from benchmarks import row_invariant

    width = SMOLLM.hidden_size
    heads = SMOLLM.num_attention_heads
    groups = SMOLLM.num_key_value_heads
    blocks = SMOLLM.num_hidden_layers
    features = SMOLLM.intermediate_size
    expected = {
        "q, k, v": ((heads + 2 * groups) * SMOLLM.head_dim, width, blocks),
        "o": (width, heads * SMOLLM.head_dim, blocks),
        "gate, up": (2 * features, width, blocks),
        "down": (width, features, blocks),
        "logits": (SMOLLM.vocab_size, width, 1),
    }
    assert expected == row_invariant.SHAPES
    rounds = set()

    def turns(pairs, x, count, clock, rest):
        rounds.add(count)
        return {name: [(1.0, 2.0)] * 3 for name in pairs}

    monkeypatch.setattr(row_invariant, "SHAPES", {"o": (64, 576, 1)})
    monkeypatch.setattr(row_invariant, "turns", turns)
    assert row_invariant.main([]) == 0
    (count,) = rounds
    assert f"medians of {WORDS[count]} turns" in BACKENDS


CHANGING = """
import json
import numpy as np
from benchmarks.row_invariant import SHAPES, blas, changing
from threadpoolctl import threadpool_info
rng = np.random.default_rng(0)
found = {}
for name, (outputs, inputs, _) in SHAPES.items():
    x = rng.standard_normal((512, inputs), dtype=np.float32)
    w = rng.standard_normal((outputs, inputs), dtype=np.float32)
    found[name] = changing(blas, x, w)
[library] = [one for one in threadpool_info() if one["internal_api"] == "openblas"]
print(json.dumps([library["version"], library["architecture"], found]))
"""


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.parametrize("core", ["SkylakeX", "Haswell"])
def test_rows_of_blas_change_as_the_page_says(core):
    """AVX-512 and AVX2: the kernels of one version, on a processor that has the instructions."""
    pytest.importorskip("numba", reason=needs_numba)
    environment = os.environ | {"OPENBLAS_CORETYPE": core, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHANGING]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    if -done.returncode == signal.SIGILL:
        pytest.skip(f"this processor lacks instructions of the kernels for {core}")
    assert done.returncode == 0, done.stderr
    version, architecture, found = json.loads(done.stdout)
    if not version.startswith("0.3.31") or architecture != core:
        pytest.skip(f"has the kernels of OpenBLAS {version} for {architecture}")
    if core == "Haswell":
        assert "with AVX2 kernels 1, 2, 7 and 64 do" in BACKENDS
        assert all(rows == [1, 2, 7, 64] for rows in found.values()), found
    else:
        assert "a lone row for every matrix (two rows for one of them)" in BACKENDS
        assert all(rows[0] == 1 for rows in found.values()), found
        assert sorted(map(len, found.values())) == [1, 1, 1, 1, 2], found
        assert [1, 2] in found.values(), found


SUBSETS = (
    """
import llvmlite.binding as llvm
import numpy
from numba.core.registry import cpu_target
from threadpoolctl import threadpool_info
triple, name, features = cpu_target.target_context.codegen().magic_tuple()
machine = llvm.Target.from_triple(triple).create_target_machine(cpu=name, features=features)
code = """
    + repr("""
define void @f(<16 x float>* %x, <16 x float>* %y) {
  %a = load <16 x float>, <16 x float>* %x
  %b = load <16 x float>, <16 x float>* %y
  %c = fadd <16 x float> %a, %b
  store <16 x float> %c, <16 x float>* %x
  ret void
}
""")
    + """
assembly = machine.emit_assembly(llvm.parse_assembly(code))
[library] = [one for one in threadpool_info() if one["internal_api"] == "openblas"]
print(library["architecture"], "ymm" in assembly, "zmm" in assembly)
"""
)


@pytest.mark.backends
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="needs an x86-64")
def test_the_page_says_how_both_run_on_avx2_alone():
    """Where the processor has AVX-512, Numba uses it unless its features are left empty too."""
    pytest.importorskip("numba", reason=needs_numba)
    told = re.search("run both on AVX2 alone, put `([^`]*)`", BACKENDS)[1]
    settings = dict(setting.split("=") for setting in told.split())
    command = [sys.executable, "-c", SUBSETS]

    def printed(**more):
        environment = os.environ | settings | more
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert printed() == ["Haswell", "True", "False"]
    assert printed(NUMBA_CPU_FEATURES="+avx512f") == ["Haswell", "False", "True"]


def test_the_table_of_speed_has_two_bytes_numpy_pytorch_and_llama_cpp_and_its_command():
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    assert "* command: python -m benchmarks --peers --write" in results
    table = results.split("## Contenders")[1].split("## Ratios")[0]
    names = re.findall(r"(?m)^\| (\S.*?) +\|", table)
    assert {"exact/numba", "exact/numba bfloat16", "float32/numpy"} < set(names)
    assert {"transformers", "llama.cpp float32"} < set(names)
    assert "torch: " in results
    chapter = (ROOT / "notebooks" / "09_fast.py").read_text(encoding="utf-8")
    assert "# # 9. Fast" in chapter


# docs/parallel.md


def heard(comm: Comm) -> list[tuple[str, tuple[int, ...], int]]:
    """What a rank calls from now on: which call, the array's shape, and bytes of a number."""
    calls: list[tuple[str, tuple[int, ...], int]] = []
    reduce = comm.reduce
    gather = comm.gather

    def reduced(array, reduction):
        calls.append(({np.maximum: "max", np.add: "sum"}[reduction], array.shape, array.itemsize))
        return reduce(array, reduction)

    def gathered(array):
        calls.append(("gather", array.shape, array.itemsize))
        return gather(array)

    comm.reduce = reduced
    comm.gather = gathered
    return calls


def test_ranks_meet_in_three_calls_and_the_logits_are_gathered():
    assert Comm.__abstractmethods__ == {"reduce", "gather", "fail", "close"}
    words = minikv.ModelConfig.from_folder(TINY).vocab_size

    def work(comm: Comm) -> list:
        calls = heard(comm)
        load_rank(TINY, comm).logits([1, 2, 3])
        assert len(calls) == comm.calls
        return calls

    first, second = run_threads(2, work)
    assert {what for what, *_ in first} == {what for what, *_ in second} == {"max", "sum", "gather"}
    assert f"in {WORDS[3]} calls, `max`, `sum` and `gather`" in PARALLEL
    assert first[-1] == ("gather", (3, words // 2), 4)
    assert second[-1] == ("gather", (3, words - words // 2), 4)


@pytest.mark.parametrize("arithmetic", [NumpyExact(64), Float32()])
def test_a_split_sum_is_three_calls_and_one_in_float32(arithmetic):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 6), dtype=np.float32)
    matrix = rng.standard_normal((3, 6), dtype=np.float32)

    def work(comm: Comm) -> tuple[list, list]:
        sums = split_sums(arithmetic, comm)
        mine = slice(3 * comm.rank, 3 * comm.rank + 3)
        calls = heard(comm)
        part = sums.columns(matrix[:, mine], "w", 6)
        loading = list(calls)
        calls.clear()
        sums.linear(x[:, mine], part)
        return loading, calls

    for loading, calls in run_threads(2, work):
        if arithmetic.name == "float32":
            assert (loading, calls) == ([], [("sum", (5, 3), 4)])
        else:
            assert loading == [("max", (3, 1), 8)]
            assert calls == [("max", (5, 2), 8), ("sum", (5, 2), 8), ("sum", (5, 3), 8)]
    assert "sends twice the bytes (8 for 4), in three calls for one" in PARALLEL
    assert "each row's largest number, 2 numbers a row" in PARALLEL
    assert "from which `Exact.total` is made, 2 numbers a row" in PARALLEL


def test_a_query_meets_the_keys_of_all_ranks_in_five_calls():
    rng = np.random.default_rng(0)
    q = rng.standard_normal((3, 4, 8), dtype=np.float32)

    def work(comm: Comm) -> tuple[list, int]:
        sums = over_context(NumpyExact(64), comm)
        k, v = (sums.settle(rng.standard_normal((5, 2, 8), dtype=np.float32)) for _ in "kv")
        calls = heard(comm)
        sight = Sight(np.array([7, 8, 9]), np.arange(comm.rank, 10, 2))
        sums.attention(q, k, v, sight, 0.3)
        return [what for what, *_ in calls], comm.calls

    for calls, count in run_threads(2, work):
        assert calls == ["max", "sum", "max", "sum", "sum"]
        assert f"meets the keys of all ranks in {WORDS[count]} calls" in PARALLEL


def test_a_rank_holds_every_nth_token():
    model = minikv.random_model(minikv.tiny_config(), 0)
    config = model.config
    rows = np.zeros((7, config.num_key_value_heads, config.head_dim), np.float32)
    rows += np.arange(7, dtype=np.float32)[:, None, None]

    def work(comm: Comm) -> list:
        cache = Dealt(model.weights, comm)
        positions, k, v = cache.update(model.layers[0], np.arange(7), None, rows, -rows)
        assert k[:, 0, 0].tolist() == (-v[:, 0, 0]).tolist() == positions.tolist()
        return positions.tolist()

    assert run_threads(3, work) == [[0, 3, 6], [1, 4], [2, 5]]


def test_the_stream_is_on_all_ranks():
    name = "blocks.1.hook_resid_pre"
    ids = [3, 150, 300]  # whose rows of the embedding lie on three ranks
    alone = minikv.load(TINY, "exact").run_with_cache(ids)[1][name]

    def work(comm: Comm) -> np.ndarray:
        return load_rank(TINY, comm).run_with_cache(ids)[1][name]

    for stream in run_threads(3, work):
        assert_same_bits(stream, alone)


def test_stages_refuse_kv_direct_in_a_line():
    config = minikv.tiny_config()
    tensors = minikv.random_tensors(config, 5)

    def work(comm: Comm) -> None:
        stage = make_stage(config, tensors, comm)
        stage.forward([[1, 2]], [make_cache("residual", stage.weights, budget=1)])

    with pytest.raises(InputError, match="'residual' may run all again: choose another"):
        run_threads(2, work)


def held_beside_kv(model: minikv.Model) -> int:
    """Bytes of a KV-Direct cache that are not K and V."""
    cache = model.new_cache("residual", budget=4)
    model.forward([range(12)], [cache])
    return cache.nbytes - cache.stored * model.config.kv_bytes_per_token()


def test_every_rank_holds_the_checkpoints_of_kv_direct():
    whole = held_beside_kv(minikv.load(TINY, "exact"))
    assert whole > 0
    assert run_threads(2, lambda comm: held_beside_kv(load_rank(TINY, comm))) == [whole] * 2


def test_the_policies_that_look_at_all_heads_are_those_of_the_page():
    (words,) = re.findall(r"by the attention of all heads \(([^)]+)\) are refused", PARALLEL)
    refused = set()
    for name, policy in POLICIES.items():
        if not policy.__module__.startswith("minikv.caches"):  # one of a test's own
            continue
        try:
            check_policy(name)
        except InputError:
            refused.add(name)
        assert (name in refused) == policy.watches
    assert refused == set(words.lower().split(", "))


def test_what_is_cut_by_columns_is_unpacked_in_whole_rows_and_only_those_wanted(monkeypatch):
    shapes = []
    unpacked = Packed.unpacked

    def noted(packed: Packed) -> np.ndarray:
        shapes.append(packed.shape)
        return unpacked(packed)

    monkeypatch.setattr(Packed, "unpacked", noted)
    scales = np.ones((6, 2), np.float32)
    packed = Packed(np.zeros((6, 2), np.uint32), scales, scales, bits=4)
    by_columns = SimpleNamespace(_part=lambda name: (slice(None), slice(0, 8)))
    by_rows = SimpleNamespace(_part=lambda name: (slice(2, 4),))
    assert FolderTensors.cut(by_columns, "w", packed).shape == (6, 8)
    assert FolderTensors.cut(by_rows, "w", packed).shape == (2, 16)
    assert shapes == [(6, 16), (2, 16)]


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    return near, far


def test_a_line_is_not_encrypted_and_waits_as_long_as_it_takes():
    near, far = tcp_pair()
    line = Line(near, "rank 0")
    assert near.gettimeout() is None
    line.put(np.frombuffer(b"Once upon a time", np.uint8), 1)
    assert b"Once upon a time" in far.recv(1000)
    near.close()
    far.close()


def test_the_key_is_empty_if_none_is_given():
    assert "(the empty one, if none is given)" in PARALLEL
    parse = make_parser().parse_args
    assert parse(["generate", "Hello", "--ranks", "2", "--listen", "10.0.0.1:1"]).key == ""
    assert parse(["serve-rank", "10.0.0.1:1"]).key == ""


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system cannot be told")
def test_a_machine_that_is_gone_is_given_up_after_the_seconds_of_the_page():
    assert f"after {WORDS[PROBE_SECONDS]} seconds without an answer" in PARALLEL
    with socket.socket() as end:
        probe(end)

        def option(name: str) -> int:
            return end.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))

        assert option("TCP_USER_TIMEOUT") == 1000 * PROBE_SECONDS
        probes = option("TCP_KEEPCNT") * option("TCP_KEEPINTVL")
        assert option("TCP_KEEPIDLE") + probes == PROBE_SECONDS


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_a_sum_over_sockets_is_taken_in_the_order_of_arrival(order):
    pairs = {rank: tcp_pair() for rank in (1, 2)}
    hub = Hub({rank: Line(near, f"rank {rank}") for rank, (near, _) in pairs.items()})
    spokes = {rank: Line(far, "rank 0") for rank, (_, far) in pairs.items()}
    numbers = {0: 1e16, 1: 1.0, 2: -1e16}  # 0 in one order and 1 in the other
    added = threading.Event()

    def noted(total, part, out):
        np.add(total, part, out=out)
        added.set()

    found = []
    one = threading.Thread(
        target=lambda: found.extend(hub.reduce(np.array([numbers[0]]), noted).tolist()),
        daemon=True,  # so that a rank that waits in vain holds up nobody
    )
    one.start()
    total = numbers[0]
    for rank in order:
        added.clear()
        spokes[rank].put(np.array([numbers[rank]]), 1)
        assert added.wait(60)
        total += numbers[rank]
    one.join(60)
    assert found == [total]
    for near, far in pairs.values():
        near.close()
        far.close()


@pytest.mark.parametrize("size", [2, 4, 5])
def test_the_model_of_cost_reads_waits_and_sends_and_nothing_else(size):
    config = shape("gemma-3-4b")
    said = said_per_token(config, size)

    def seconds(latency: float, bandwidth: float, memory: float) -> float:
        return seconds_per_token(config, size, Network("", latency, bandwidth), memory)

    nothing = math.inf
    assert seconds(0.0, nothing, 1.0) == config.num_parameters * 4 / size
    steps = 2 * math.ceil(math.log2(size))
    assert seconds(1.0, nothing, nothing) == said.calls * steps
    assert seconds(0.0, 1.0, nothing) == 2 * said.sums + said.gathered


def test_the_extra_mpi_is_what_the_page_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extra = project["project"]["optional-dependencies"]["mpi"]
    names = " ".join(re.split(r"[>=<]", one)[0] for one in extra)
    assert f"(`pip install {names}`, the extra `mpi`;" in PARALLEL


# docs/experiments.md

TABLES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in (ROOT / "docs" / "experiments").glob("*.txt")
}


def rows(name: str) -> list[dict[str, str]]:
    """The lines of a table, by the words of its heading, without command and notes."""
    heading, *lines = TABLES[name].split("\n\n")[0].splitlines()[1:]
    return [dict(zip(heading.split(), line.split(), strict=True)) for line in lines]


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_the_commands_of_the_benchmark_make_every_table_and_plot_of_the_page():
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    for kind in ("txt", "png"):
        shown = re.findall(rf"experiments/([\w.-]+)\.{kind}", text)
        assert sorted(shown) == sorted(experiments.COMMANDS)
    for name, command in experiments.COMMANDS.items():
        assert TABLES[name].startswith(f"$ minikv {' '.join(command)}\n")
    used = {command[0] for command in experiments.COMMANDS.values()}
    assert used == {"compare", "memory", "frontier", "latency"}
    assert "`minikv compare`, `memory`, `frontier` and `latency` are the commands" in EXPERIMENTS


def test_a_residual_at_every_layer_holds_more_than_the_full_cache_in_both_tables():
    found = [row for row in rows("compare") if row["policy"] == "residual:every"]
    assert len(found) == 3
    assert all(number(row["bytes"]) > number(row["full_bytes"]) for row in found)
    held = {(row["setting"], row["turn"]): number(row["bytes"]) for row in rows("memory")}
    for turn in ("1", "5", "10", "15", "20"):
        assert held["residual:every@128", turn] > held["full", turn]


def test_of_most_shapes_a_residual_at_every_layer_is_more_than_keys_and_values():
    more = []
    for name in SHAPES:
        config = shape(name)
        every = config.num_hidden_layers * config.residual_bytes_per_token()
        if every > config.kv_bytes_per_token():
            more.append(name)
    assert "smollm2-135m" in more
    assert len(more) > len(SHAPES) / 2


def test_bytes_are_those_of_keys_values_checkpoints_and_ids():
    residual = SMOLLM.residual_bytes_per_token()
    each = {
        "every": SMOLLM.num_hidden_layers * residual,
        "5": SMOLLM.num_hidden_layers // 5 * residual,
        "embedding": residual,
        "tokens": 4,
    }
    for row in rows("memory"):
        tokens = number(row["tokens"])
        kept = tokens
        checkpoints = 0
        if row["setting"] != "full":
            _, what, budget = re.split("[:@]", row["setting"])
            kept = min(tokens, int(budget))
            checkpoints = tokens * each[what]
        expected = kept * SMOLLM.kv_bytes_per_token() + checkpoints
        assert number(row["bytes"]) == expected, row


def test_what_is_allocated_has_spare_room_and_the_weights_are_not_in_the_peak():
    weights = 4 * SMOLLM.num_parameters
    for row in rows("memory"):
        held, allocated, peak = (number(row[key]) for key in ("bytes", "allocated", "peak"))
        assert held < allocated < peak < weights / 5, row
    (process,) = re.findall(r"Peak of the process, with weights: ([\d,]+) bytes", TABLES["memory"])
    assert number(process) > weights


def test_the_paper_s_match_budgets_and_lengths_are_those_of_figure_4():
    least, most = figure_4.PAPER_MATCH
    cells = [cell for models in figure_4.PAPER.values() for one in models for cell in one]
    assert (min(cells), max(cells)) == (least, most)
    first, *_, last = figure_4.BUDGETS
    words = f"The paper reports {least} to {most} % of tokens equal for baselines that evict, at"
    assert f"{words} budgets of {first} to {last} of {figure_4.CONTEXT} tokens" in EXPERIMENTS
    (longest, new) = re.findall(r"to (\d+) tokens, (\d+) new ones", TABLES["compare"])[0]
    assert int(longest) + int(new) < figure_4.CONTEXT  # "with shorter ones"


def test_gemma_s_budgets_texts_tokens_and_window_are_those_of_its_table_and_shape():
    name = "compare-gemma-3-270m"
    first, second = dict.fromkeys(row["budget"] for row in rows(name))
    texts, new = re.findall(r"(\d+) prompts of .* tokens, (\d+) new ones", TABLES[name])[0]
    config = shape("gemma-3-270m")
    sliding = sum("sliding" in kind for kind in config.layer_types)
    assert sliding * 6 == config.num_hidden_layers * 5
    assert (
        f"whose layers slide {WORDS[5]} of {WORDS[6]} with a window of {config.sliding_window}: "
        f"{WORDS[int(texts)]} of the texts, {new} new tokens, budgets of {first} and {second} "
        "(`--quick`)"
    ) in EXPERIMENTS


def test_checkpoints_are_evicted_in_chunks_of_the_page():
    cache = minikv.random_model(minikv.tiny_config()).new_cache("residual", budget=4)
    assert f"once a chunk of {cache.chunk} tokens has been evicted" in EXPERIMENTS


def test_counting_at_gemma_s_shape_gives_the_page_s_table_and_megabytes(capsys):
    assert main(experiments.COMMANDS["shape"]) == 0
    printed = capsys.readouterr().out
    assert TABLES["shape"].partition("\n")[2].split() == printed.split()  # lines break elsewhere
    assert "the paper's 42 MB beside 103 MB" in EXPERIMENTS
    assert printed.count("the paper's 103 MB are") == printed.count("42 MB is a budget of") == 2


def test_a_shape_is_proved_t1_and_d_and_the_largest_other_has_the_page_s_parameters():
    assert set(STATEMENTS) == {"T1", "D"}
    largest = max(shape(name).num_parameters for name in SHAPES if name != "gemma-3-4b")
    assert f"ship, up to {largest / 1e9:.0f}B" in EXPERIMENTS


# docs/paper.md


def test_the_page_of_the_paper_says_what_each_verdict_means():
    (meanings,) = re.findall(r"\*Reproduced\* is what came out as printed;.*?\. ", told("paper"))
    assert [one.lower() for one in re.findall(r"\*([^*]+)\*", meanings)] == list(Verdict)
