"""One decoder on every array library: the golden fingerprints, the caches, what is refused."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from bits import assert_same_bits, same_bits
from test_fingerprint import GOLDEN, NAMES, TINY, case

import minikv
from minikv.arithmetic import Float64
from minikv.arrays import to_numpy
from minikv.backends import BACKENDS, get_backend
from minikv.caches import POLICIES, Cache, Scheduled
from minikv.cli import main
from minikv.errors import ArithmeticRangeError, CacheError, InputError, MissingExtraError
from minikv.fingerprint import fingerprint
from minikv.model import Model
from minikv.verify.texts import real_cases

pytestmark = pytest.mark.backends


def backend(name: str):
    """A test parameter; the test skips, and says why, where the library or a GPU is missing."""
    gpu = [pytest.mark.gpu] if name == "cupy" else []
    return pytest.param(name, marks=gpu)


@pytest.fixture(params=[backend(name) for name in BACKENDS if name != "numpy"])
def name(request):
    if request.param == "numba":  # which falls back to NumPy
        pytest.importorskip("numba", reason="the backend needs numba, not installed here")
    if request.param == "cupy":
        pytest.importorskip("cupy", reason="the backend needs cupy, not installed here")
        import cupy

        if not cupy.is_available():
            pytest.skip("CuPy is installed, but finds no GPU")
    try:
        get_backend(request.param, "float32")
    except MissingExtraError as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture
def cached(name):
    if name == "jax":
        pytest.skip("JAX's arrays cannot be assigned to, as caches do")
    return name


@pytest.mark.parametrize("golden", NAMES)
def test_fingerprint_is_the_golden_one_on_every_backend(golden, name):
    config, tensors, ids = case(golden)
    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))[golden]["fingerprint"]
    model = Model(minikv.build(config, tensors, "exact", name))
    assert fingerprint(model, ids) == expected


@contextmanager
def flushing():
    """This thread, and PyTorch in it, computes as CuPy does, which compiles with -ftz=true."""
    torch = pytest.importorskip("torch", reason="the backend needs torch, not installed here")
    pytest.importorskip("array_api_compat", reason="the backend needs it, not installed here")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    try:
        assert float(torch.tensor(2.0**-130) + 0.0) == 0.0
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


@pytest.mark.parametrize("golden", NAMES)
def test_flushing_subnormal_numbers_changes_no_golden_fingerprint(golden):
    config, tensors, ids = case(golden)
    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))[golden]["fingerprint"]
    with flushing():
        assert fingerprint(Model(minikv.build(config, tensors, "exact", "torch")), ids) == expected


@pytest.mark.weights
@pytest.mark.parametrize(
    ("folder", "activations"),
    [
        ("smollm2", []),
        pytest.param("gemma", ["mlp.hook_post"], marks=[pytest.mark.slow, pytest.mark.night]),
    ],
)
def test_flushing_changes_no_logit_of_a_real_model(folder, activations, request):
    path = request.getfixturevalue(folder)
    ids = real_cases(str(path))[1].ids
    expected, plain = minikv.load(path, "exact").run_with_cache(ids)
    with flushing():
        logits, flushed = minikv.load(path, "exact", "torch").run_with_cache(ids)
    assert_same_bits(to_numpy(logits), expected)
    flushed = {name: to_numpy(values) for name, values in flushed.items()}
    changed = {
        name.split(".", 2)[-1]
        for name, values in plain.items()
        if not same_bits(flushed[name], values)
    }
    assert changed == set(activations)


def test_only_jax_and_cupy_flush_subnormal_logits(name):
    config = minikv.tiny_config(tie_word_embeddings=False)
    tensors = minikv.random_tensors(config, 1)
    tensors["lm_head.weight"] *= np.float32(2.0**-127)
    expected, got = (
        to_numpy(Model(minikv.build(config, tensors, "exact", library)).logits([3]))
        for library in ("numpy", name)
    )
    small = (expected != 0) & (abs(expected) < 2.0**-126)
    assert small.any()
    assert not small.all()
    if name in ("jax", "cupy"):
        expected = np.where(small, np.float32(0), expected)
    assert_same_bits(got, expected)


@pytest.mark.parametrize("chunks", [1, 7])
def test_a_cache_on_the_backend_changes_no_bit(chunks, cached):
    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))["tiny"]
    model = minikv.load(TINY, "exact", cached)
    assert fingerprint(model, expected["ids"], chunks) == expected["fingerprint"]


def mixed(step: int, layer: int, position: int) -> str:
    return ("kv", "residual", "both")[(step + layer + position // 3) % 3]


def steps(backend: str, policy: str) -> tuple[np.ndarray, dict[str, str]]:
    """Logits of calls of several lengths, the last after saving, loading, forking, cutting off."""
    model = minikv.random_model(minikv.tiny_config(), 3, "exact", backend=backend)
    sized = {"budget": 8} if policy not in ("full", "none") else {}

    def new_cache() -> Cache:
        if policy == "scheduled":
            return Scheduled(model.weights, mixed)
        return model.new_cache(policy, **sized)

    ids = [(i * i * 31 + 7 * i) % 97 for i in range(40)]
    cache, rows = new_cache(), []
    for start, stop in ((0, 4), (4, 20), (20, 21), (21, 22), (22, 37), (37, 38)):
        rows.append(to_numpy(model.forward([ids[start:stop]], [cache], "all")))
    state, again = cache.state(), new_cache()
    again.load_state(*state)
    rows.append(to_numpy(model.forward([ids[38:]], [again.fork()], "all")))
    again.truncate(36)
    rows.append(to_numpy(model.forward([ids[36:]], [again], "all")))
    return np.concatenate(rows), state[1]


@pytest.mark.parametrize("policy", [*POLICIES, "scheduled"])
def test_every_policy_gives_numpys_bits_and_a_state_that_numpy_can_load(policy, cached):
    got, expected = steps(cached, policy), steps("numpy", policy)
    assert_same_bits(got[0], expected[0])
    assert got[1] == expected[1]


@contextmanager
def asking_nothing():
    """Whatever would make a program wait for a device, to learn a value or a shape, is refused."""
    strict = pytest.importorskip("array_api_strict", reason="the backend needs it, not installed")
    array = type(strict.asarray(0.0))

    def asked(*_):
        raise AssertionError("a value was asked of the device")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("__bool__", "__float__", "__int__", "__index__", "__array__", "__buffer__"):
            patch.setattr(array, name, asked, raising=False)
        with strict.ArrayAPIStrictFlags(boolean_indexing=False, data_dependent_shapes=False):
            yield


@pytest.mark.parametrize("policy", ["full", "none", "residual", "window", "streaming_llm"])
@pytest.mark.parametrize("arithmetic", ["exact", "float32"])
def test_a_step_asks_a_device_for_nothing_but_its_logits(arithmetic, policy):
    model = minikv.random_model(minikv.tiny_config(), 3, arithmetic, backend="array_api_strict")
    cache = model.new_cache(policy, **({"budget": 8} if policy not in ("full", "none") else {}))
    with asking_nothing():
        for ids in ([(i * 31) % 97 for i in range(40)], [5], [6, 7]):
            logits = model.forward([ids], [cache])
        with pytest.raises(AssertionError, match="asked of the device"):
            to_numpy(logits)
    assert np.isfinite(to_numpy(logits)).all()


@pytest.mark.parametrize(
    "weight",
    ["self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj", "input_layernorm"],
)
@pytest.mark.parametrize(
    ("arithmetic", "backend"), [("exact", "array_api_strict"), ("float32", "numpy")]
)
def test_what_overflows_reaches_the_logits_and_stops_generation(arithmetic, backend, weight):
    if backend == "array_api_strict":
        pytest.importorskip(backend, reason="the backend needs it, not installed here")
    config = minikv.tiny_config()
    tensors = minikv.random_tensors(config, 0)
    matrix = tensors[f"model.layers.0.{weight}.weight"]
    matrix *= np.float32(1) / abs(matrix).max()
    matrix *= np.float32(3e38)
    with np.errstate(all="ignore"):
        model = Model(minikv.build(config, tensors, arithmetic, backend))
        assert np.isnan(to_numpy(model.logits([5, 6, 7]))).all()
        with pytest.raises(ArithmeticRangeError, match="a logit is nan, expected finite"):
            list(model.generate([5, 6, 7], 1, stop=()))


def test_one_infinite_logit_stops_generation():
    config = minikv.tiny_config(tie_word_embeddings=False)
    tensors = minikv.random_tensors(config, 0)
    tensors["lm_head.weight"][10] *= np.float32(3e38)
    with np.errstate(all="ignore"):
        model = Model(minikv.build(config, tensors, "float32"))
        assert np.isinf(model.logits([5, 6, 7])).sum(axis=1).tolist() == [1, 1, 1]
        with pytest.raises(ArithmeticRangeError, match=r"a logit is -?inf, expected finite"):
            list(model.generate([5, 6, 7], 1, stop=()))


def test_what_asks_a_device_is_found():
    # The control: H2O ranks keys by their weights, on the host.
    model = minikv.random_model(minikv.tiny_config(), 3, "exact", backend="array_api_strict")
    with asking_nothing(), pytest.raises(AssertionError, match="asked of the device"):
        model.forward([[1, 2, 3]], [model.new_cache("h2o", budget=8)])


def float32_products(backend: str, tokens: int, cut: type = np.float32):
    """Each product of `Float32` beside the same in float64, and Higham's bound for n terms.

    `cut` is the type that the operands are rounded to beforehand.
    """
    arithmetic, draw = get_backend(backend, "float32"), np.random.default_rng(tokens)
    heads, groups, length, size = 6, 2, 50, 16  # head h reads the keys of group h // 3
    shapes = (tokens, heads, size), (length, groups, size), (length, groups, size)
    q, k, v = (draw.standard_normal(shape).astype(np.float32) for shape in shapes)
    w, pattern = v.reshape(length, -1), draw.random((heads, tokens, length), np.float32)
    x = w[:tokens]

    def arrays(values):
        return arithmetic.xp.asarray(values.astype(cut).astype(np.float32))

    got = (
        arithmetic.linear(arrays(x), arithmetic.weight(w, "w")),
        arithmetic.scores(arrays(q), arrays(k), 0.25),  # a power of two: no rounding of its own
        arithmetic.weighted_sum(arrays(pattern), arrays(v)),
    )
    x, w, q, k, v, pattern = (a.astype(np.float64) for a in (x, w, q / 4, k, v, pattern))
    k, v = (a.repeat(heads // groups, axis=1) for a in (k, v))
    for name, operands, result in (
        ("tc,sc->ts", (x, w), got[0]),
        ("thd,shd->hts", (q, k), got[1]),
        ("hts,shd->thd", (pattern, v), got[2]),
    ):
        n = length if name.startswith("hts") else operands[0].shape[-1]
        gamma = n * 2.0**-24 / (1 - n * 2.0**-24)
        bound = gamma * np.einsum(name, *map(abs, operands))
        yield to_numpy(result), np.einsum(name, *operands), bound


@pytest.mark.parametrize("tokens", [1, 2, 40])
def test_float32_products_obey_highams_bound(tokens, name):
    for backend in ("numpy", name):
        for got, true, bound in float32_products(backend, tokens):
            assert (got.shape, got.dtype) == (true.shape, np.float32)
            assert (abs(got - true) <= bound).all()


def test_operands_of_11_bits_break_highams_bound():
    # The control: what a GPU's tensor cores would do to float32, if they were let.
    for got, true, bound in float32_products("numpy", 2, np.float16):
        assert (abs(got - true) > bound).any()


def test_float32_of_another_blas_differs_from_numpys():
    # The control: what the fingerprints above are equal in spite of.
    pytest.importorskip("torch", reason="the backend needs torch, not installed here")
    pytest.importorskip("array_api_compat", reason="the backend needs it, not installed here")
    config, tensors, ids = case("random: one wide block, 200 tokens")
    models = [Model(minikv.build(config, tensors, "float32", name)) for name in ("numpy", "torch")]
    assert fingerprint(models[0], ids) != fingerprint(models[1], ids)


def test_generation_draws_the_same_tokens(name):
    cache = "none" if name == "jax" else "full"
    answers = []
    for backend in ("numpy", name):
        model = minikv.load(TINY, "exact", backend)
        drawn = model.generate([3, 4, 5], 8, cache, temperature=0.8, top_k=20, seed=5, stop=())
        answers.append(list(drawn))
    assert answers[0] == answers[1]
    assert len(answers[0]) == 8


def test_hooks_see_arrays_of_the_backend(name):
    model = minikv.load(TINY, "exact", name)
    _, activations = model.run_with_cache([3, 4, 5])
    expected = minikv.load(TINY, "exact").run_with_cache([3, 4, 5])[1]
    for key, value in expected.items():
        assert_same_bits(to_numpy(activations[key]), value, key)


def test_command_line_takes_a_backend(name, capsys):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))["tiny"]
    assert main(["fingerprint", "--model", str(TINY), "--backend", name, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["fingerprint"] == golden["fingerprint"]
    assert figures["environment"]["backend"] == name


def test_generate_prints_the_same_text_on_a_backend(cached, capsys):
    texts = []
    for backend in ("numpy", cached):
        command = ["generate", "Hello", "--model", str(TINY), "--arithmetic", "exact"]
        assert main([*command, "--backend", backend, "--max-new-tokens", "6"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


def test_caches_say_that_jax_cannot_assign():
    class Immutable:
        __name__ = "jax.numpy"

        def __getattr__(self, name):
            return getattr(np, name)

    arithmetic = get_backend("numpy", "exact", 128)
    arithmetic.xp = Immutable()
    model = minikv.random_model(minikv.tiny_config(), arithmetic=arithmetic)
    with pytest.raises(CacheError, match=r"'full' assigns in place.*'none'"):
        model.new_cache()
    assert model.forward([[1, 2]], [model.new_cache("none")]).shape == (1, 97)


@pytest.mark.parametrize("wrong", ["", "tensorflow", "NumPy"])
def test_an_unknown_backend_is_refused(wrong, capsys):
    with pytest.raises(InputError, match=r"unknown; choose one of numpy, numba, torch"):
        minikv.load(TINY, "exact", wrong)
    assert main(["generate", "x", "--model", str(TINY), "--backend", wrong]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", [name for name in BACKENDS if name not in ("numpy", "numba")])
def test_a_missing_package_names_its_extra(name, monkeypatch):
    """Each needs an array library or its wrapper; here none can be imported."""
    loaded = [module for module in sys.modules if module.startswith("array_api_compat")]
    for module in ("array_api_compat", "array_api_strict", "jax", "jax.numpy", *loaded):
        monkeypatch.setitem(sys.modules, module, None)
    extras = r"backend .* needs the package .*pip install .*the extra minikv\[\w+\]"
    with pytest.raises(MissingExtraError, match=extras):
        get_backend(name, "exact")


def test_a_missing_gpu_is_said_in_one_line(monkeypatch, capsys, tmp_path):
    def empty(shape):
        raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version\nis insufficient")

    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", SimpleNamespace(empty=empty))
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path))
    assert main(["generate", "x", "--model", str(TINY), "--backend", "cupy"]) == 2
    said = capsys.readouterr().err
    assert "got RuntimeError: cudaErrorInsufficientDriver: CUDA driver version is insuff" in said
    assert "expected an NVIDIA GPU" in said
    assert said.count("\n") == 1


def test_cupy_says_that_it_compiles_at_its_first_use(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", np)
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "kernels"))
    get_backend("cupy", "exact")
    assert capsys.readouterr().err.startswith("minikv: compiling CuPy's kernels, once")
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "some.cubin").touch()
    get_backend("cupy", "exact")
    assert capsys.readouterr().err == ""


def test_a_gpu_without_cublas_is_refused_at_once(monkeypatch, tmp_path):
    class NoProducts(np.ndarray):
        def __matmul__(self, other):
            raise ImportError("libcublas.so.12: cannot open shared object file")

    fake = SimpleNamespace(empty=lambda shape: np.empty(shape).view(NoProducts))
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", fake)
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path))
    with pytest.raises(InputError, match=r"got ImportError: libcublas.so.12: cannot open"):
        get_backend("cupy", "exact")


def test_an_arithmetic_of_ones_own_passes_through():
    own = get_backend("numpy", "exact", 100)
    assert get_backend("numpy", own) is own


def test_a_jax_that_divides_inexactly_is_refused_by_exact_alone():
    # XLA turns division by one number into a product with its reciprocal, unless told early.
    pytest.importorskip("jax", reason="the backend needs jax, not installed here")
    code = (
        "import jax; {} from minikv.backends import get_backend; get_backend('jax', 'float32')\n"
        "get_backend('jax', 'exact'); print('XLA_FLAGS', __import__('os').environ['XLA_FLAGS'])"
    )
    late, early = (
        subprocess.run([sys.executable, "-c", code.format(first)], capture_output=True, text=True)
        for first in ("jax.numpy.ones(3) / 2;", "")
    )
    assert early.stdout == "XLA_FLAGS \n", early.stderr
    assert "start Python with XLA_FLAGS=--xla_disable_hlo_passes=algsimp" in late.stderr


class FakeJax(ModuleType):
    """NumPy under JAX's name; `inexact`: it divides as XLA does where nobody told it early."""

    def __init__(self, inexact: bool) -> None:
        super().__init__("jax.numpy")
        self.inexact = inexact
        self.flags: list[str] = []

    def __getattr__(self, name):
        return getattr(np, name)

    def asarray(self, x, **kind):
        self.flags.append(os.environ["XLA_FLAGS"])
        x = np.asarray(x, **kind)
        return x.view(Reciprocal) if self.inexact else x


class Reciprocal(np.ndarray):
    """An array that is divided by a product with the reciprocal."""

    def __truediv__(self, other):
        return np.asarray(self) * (1 / other)


@pytest.mark.parametrize("inexact", [False, True])
def test_jax_is_told_early_how_to_divide_and_looked_at(inexact, monkeypatch):
    xp, settings = FakeJax(inexact), []
    config = SimpleNamespace(update=lambda *setting: settings.append(setting))
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(config=config, numpy=xp))
    monkeypatch.setitem(sys.modules, "jax.numpy", xp)
    monkeypatch.setenv("XLA_FLAGS", "--given")
    assert get_backend("jax", "float32").xp is xp
    assert settings == [("jax_enable_x64", True)]
    assert xp.flags == ["--given --xla_disable_hlo_passes=algsimp"]
    assert os.environ["XLA_FLAGS"] == "--given"
    if inexact:
        with pytest.raises(InputError, match="divides inexactly, expected correctly rounded"):
            get_backend("jax", "exact")
    else:
        assert get_backend("jax", "exact").xp is xp


def test_how_openmp_waits_is_what_the_user_set_or_minikvs_for_a_moment(monkeypatch):
    pytest.importorskip("numba", reason="the backend needs numba, not installed here")
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    assert get_backend("numba", "exact", 64).name == "exact"
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert get_backend("numba", "exact", 64).name == "exact"
    assert (os.environ["GOMP_SPINCOUNT"], "OMP_WAIT_POLICY" in os.environ) == ("7", False)


def test_numba_has_no_float64_of_its_own():
    assert type(get_backend("numba", "float64")) is Float64


def test_the_library_loads_no_backend_before_it_is_asked_for():
    code = (
        "import sys, minikv, minikv.cli as m; m.make_parser(); minikv.random_model"
        "(minikv.tiny_config()).logits([1]); print([name for name in ('numba', 'torch', 'jax', "
        "'cupy', 'array_api_compat', 'llvmlite') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_gpu_benchmark_finds_a_difference_and_no_other(capsys):
    gpu = importlib.import_module("benchmarks.gpu")
    models = {name: minikv.load(TINY, "exact") for name in ("numpy", "other")}
    cases = real_cases(str(TINY))[:1]
    assert gpu.check_fingerprints(models, cases, "other") == 0
    assert gpu.check_theorems(cases) == 0
    models["other"] = minikv.load(TINY, "float32")
    assert gpu.check_fingerprints(models, cases, "other") == 3
    assert gpu.check_theorems([replace(case, arithmetic="float32") for case in cases]) > 0
    assert gpu.main(["--model", str(TINY), "--backend", "none"]) == 2
    assert "'none' is unknown" in capsys.readouterr().err


@pytest.mark.gpu
def test_a_gpu_gives_the_cpus_bits_in_the_whole_benchmark():
    cupy = pytest.importorskip("cupy", reason="the backend needs cupy, not installed here")
    if not cupy.is_available():
        pytest.skip("CuPy is installed, but finds no GPU")
    gpu = importlib.import_module("benchmarks.gpu")
    assert gpu.main(["--model", str(TINY), "--rounds", "1"]) == 0


def test_no_kernels_are_fused_or_written_for_cupy():
    library = Path(minikv.__file__).parent
    for path in library.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for word in (".fuse", "ElementwiseKernel", "RawKernel", "ReductionKernel"):
            assert word not in text, (path, word)
