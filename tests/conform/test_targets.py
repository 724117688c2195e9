"""Where targets come from."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import minikv
from minikv.conform import Word, conform
from minikv.conform.targets import find_target, llama_cpp
from minikv.conform.targets.openai_server import TOP, OpenAITarget
from minikv.conform.targets.transformers_folder import TransformersTarget
from minikv.conform.testing import conform_tests
from minikv.errors import InputError
from tests.conform import field, padding_nan
from tests.conform.field import llama_cpp_target
from tests.conform.field import tiny as tiny_of_field
from tests.conform.zoo import decoder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "my_decoder.py"
    path.write_text(
        "import numpy as np\n"
        "def logits(ids):\n"
        "    return np.cos(np.outer(np.cumsum(ids), np.arange(1, 12)))\n"
        "class Adapter:\n"
        "    logits = staticmethod(logits)\n"
    )
    return path


@pytest.mark.parametrize("name", ["logits", "Adapter"])
def test_a_function_or_a_class_in_a_file(module, name):
    report = conform(find_target(f"{module}:{name}"), axes=["causality"])
    assert report.exit_code == 0


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nothing", "expected FILE.py:NAME"),
        ("nothing.py:x", "is no Python file"),
        ("{module}:missing", "has no missing"),
        ("minikv:no-such-model", "no-such-model"),
        ("llama.cpp:nothing.gguf", "is no file"),
        ("openai:127.0.0.1", "expected http://"),
    ],
)
def test_what_cannot_be_found_is_named(module, target, words):
    with pytest.raises(InputError.__bases__[0], match=words):
        find_target(target.format(module=module))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x = (", r"SyntaxError: .* \(my_decoder.py, line 1\)$"),
        ("1 / 0", r"my_decoder.py raised ZeroDivisionError: .* \(my_decoder.py, line 1\)"),
        ("class A:\n    def __init__(self, n):\n        pass", "it is called without arguments"),
        ("class A:\n    def logits(self, ids):\n        return x", "NameError: .*, line 3\\)"),
        ("class A:\n    def step(self, ids, cache):\n        return x", "A has no logits"),
    ],
)
def test_an_error_in_the_file_is_told_with_its_line(tmp_path, code, words):
    path = tmp_path / "my_decoder.py"
    path.write_text(code)
    with pytest.raises(InputError, match=words):
        conform(find_target(f"{path}:A"))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("batch", 4, "batch of the target is 4, expected a method"),
        ("reach", print, "reach of the target .* expected a whole number"),
        ("window", 2.5, "window of the target is 2.5, expected a whole number"),
        ("policies", "recent", "expected a list of names"),
        ("dtype", "float8", "dtype of the target is 'float8', expected one of float64"),
    ],
)
def test_a_name_that_means_something_else_in_the_target_is_refused_and_is_no_bug(
    name, value, words
):
    made = decoder("gpt-numpy")
    setattr(made, name, value)
    with pytest.raises(InputError, match=words):
        conform(made)


@pytest.mark.parametrize("dtype", [np.float32, np.dtype("float32"), "torch.float32"])
def test_a_dtype_may_be_the_librarys_own_object(dtype):
    made = decoder("gpt-numpy")
    made.dtype = dtype
    assert conform(made, axes=["length"], effort="quick").dtype == "float32"


@pytest.mark.slow
def test_minikv_is_a_target_of_every_axis_but_a_few(tiny):
    made = find_target(f"minikv:{tiny}")
    begun = time.process_time()
    report = conform(made, effort="quick")
    assert time.process_time() - begun < 10  # a few seconds, as the page says
    assert report.exit_code == 0, report
    untested = {one.axis for one in report.verdicts if one.word is Word.NOT_TESTED}
    assert untested == {"warm-prefix", "window", "second"}
    assert len(report.verdicts) - len(untested) == 20


@pytest.mark.slow
def test_exact_arithmetic_has_the_same_bits_on_every_axis(tiny):
    report = conform(find_target(f"minikv:{tiny}", "exact"), effort="quick", length=24)
    words = {one.axis: one.word for one in report.verdicts if one.word is not Word.NOT_TESTED}
    # masked gives -inf to a hook, whose softmax is another path; everything else is one path
    assert {axis for axis, word in words.items() if word is not Word.SAME} <= {"eviction-positions"}


@pytest.mark.peers
def test_transformers_is_a_target_with_minikv_as_second_implementation(tiny):
    pytest.importorskip("transformers")
    report = conform(find_target(f"transformers:{tiny}"), effort="quick", length=24)
    assert report.exit_code == 0, report
    assert report["second"].word is Word.ROUNDING


@pytest.mark.peers
def test_transformers_with_a_fault_in_the_weights_is_found_by_the_second_implementation(tiny):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    made = find_target(f"transformers:{tiny}")
    with torch.no_grad():
        made.model.model.layers[1].input_layernorm.weight[0] *= 1.01
    report = conform(made, axes=["second"], effort="quick", length=24)
    assert report["second"].word is Word.BUG


@pytest.mark.peers
@pytest.mark.parametrize(
    ("wrong", "words"), [(0, ""), (-1, "bits changed"), (1, "changes nothing")]
)
def test_transformers_windows_end_where_the_configuration_says(wrong, words):
    transformers = pytest.importorskip("transformers")
    folder = pytest.importorskip("minikv.conform.targets.transformers_folder")
    made = folder.TransformersTarget(field.tiny("mistral", "sdpa", "float32"))
    assert made.reach == 3 * (field.WINDOW - 1)
    made.reach += wrong
    settings = {"effort": "quick", "length": field.BEYOND_WINDOWS, "shrink": False}
    report = conform(made, axes=["window"], **settings)
    assert report["window"].word is (Word.BUG if wrong else Word.SAME), report
    assert words in report["window"].evidence
    sees_all = transformers.MistralConfig(**field.SIZE, sliding_window=None)
    assert folder.reach_of(sees_all) is None
    some = transformers.Gemma3TextConfig(**field.FAMILIES["gemma3"][2])
    assert folder.reach_of(some) is None


class Server(http.server.BaseHTTPRequestHandler):
    """A server of a tiny model; it keeps the last prompt as a prefix."""

    model = minikv.random_model(minikv.tiny_config(), seed=3)
    kept: tuple[int, ...] = ()
    fault = 0.0

    def do_GET(self):
        self.answer({"data": [{"id": "tiny"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ids = body["prompt"]
        shared = 0
        kept = type(self).kept if body["cache_prompt"] else ()
        for old, new in zip(kept, ids[:-1], strict=False):
            if old != new:
                break
            shared += 1
        type(self).kept = tuple(ids)
        rows = np.asarray(self.model.logits(ids), np.float64)
        if shared and self.fault:
            rows = rows * (1 + self.fault)
        rows = rows - np.log(np.exp(rows).sum(-1, keepdims=True))
        tops = [{str(token): row[token] for token in np.argsort(-row)[:TOP]} for row in rows]
        self.answer(
            {
                "choices": [{"logprobs": {"top_logprobs": [None, *tops]}}],
                "usage": {"prompt_tokens_details": {"cached_tokens": shared}},
            }
        )

    def answer(self, value):
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("fault", [0.0, 0.1])
def test_a_server_is_tested_on_warm_prefixes_with_its_own_word_that_they_were_used(
    server, monkeypatch, fault
):
    monkeypatch.setattr(Server, "fault", fault)
    made = OpenAITarget(server, vocab=97, dtype="float32")
    report = conform(made, axes=["causality", "length", "warm-prefix"], length=24)
    assert report["warm-prefix"].word is (Word.BUG if fault else Word.SAME), report
    assert "shared tokens were reused" in report["warm-prefix"].evidence


def test_a_difference_of_a_server_whose_dtype_is_not_known_is_undecided(server, monkeypatch):
    monkeypatch.setattr(Server, "fault", 0.01)
    made = OpenAITarget(server, vocab=97)
    report = conform(made, axes=["warm-prefix"], effort="quick", length=24)
    assert report["warm-prefix"].word is Word.UNDECIDED, report
    assert report.exit_code == 2


def test_a_dtype_of_a_server_that_is_none_is_named():
    with pytest.raises(InputError, match="expected one of float64, float32, float16, bfloat16"):
        find_target("openai:http://127.0.0.1:9", "float8")


def test_a_server_is_tested_on_leaks_lengths_and_warm_prefixes_alone(server):
    report = conform(OpenAITarget(server, vocab=97), effort="quick", length=24)
    tested = {one.axis for one in report.verdicts if one.word is not Word.NOT_TESTED}
    assert tested == {"same-call", "causality", "length", "warm-prefix"}


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9"):
        find_target("openai:http://127.0.0.1:9")


class StubLlama:
    """What llama-cpp-python's class has, on a tiny model of minikv."""

    metadata: ClassVar[dict[str, str]] = {"tokenizer.ggml.model": "gpt2"}

    def __init__(self, *_, **__):
        self.model = minikv.random_model(minikv.tiny_config(), seed=3)
        self.reset()
        self.scores = np.zeros((128, 97), np.float32)
        self.input_ids = np.zeros(128, int)

    def n_vocab(self):
        return 97

    def n_ctx(self):
        return 128

    def tokenize(self, text, add_bos):
        return [byte % 97 for byte in text]

    def reset(self):
        self.n_tokens = 0
        self.cache = self.model.new_cache()

    def eval(self, ids):
        self.cache.truncate(self.n_tokens)
        end = self.n_tokens + len(ids)
        self.scores[self.n_tokens : end] = self.model.forward([ids], [self.cache], "all")
        self.input_ids[self.n_tokens : end] = ids
        self.n_tokens = end


def test_llama_cpp_is_driven_through_its_python_package():
    made = llama_cpp.LlamaCppTarget(StubLlama(), "a stub")
    report = conform(made, length=40)
    words = {one.axis: one.word for one in report.verdicts}
    assert report.bugs == [], report
    for axis in ("cached", "truncate", "warm-prefix", "last-position", "length"):
        assert words[axis] in (Word.SAME, Word.ROUNDING), report


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "store"), [("F32", "float32"), ("Q4_0", "float16")])
def test_llama_cpp_itself_raises_no_alarm_and_reuses_a_prefix(kind, store):
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python, not installed here")
    made = llama_cpp_target(kind, store)
    report = conform(made, effort="quick", length=24)
    assert report.bugs == [], report
    assert "18 of 18 shared tokens were reused" in report["warm-prefix"].evidence
    same = Word.ROUNDING if kind == "F32" else Word.NOT_TESTED
    assert report["second"].word is same


@pytest.mark.weights
def test_a_gguf_file_in_llama_cpp_itself():
    pytest.importorskip("llama_cpp")
    files = sorted(ROOT.glob("weights/*.gguf"))
    if not files:
        pytest.skip("no GGUF file in weights/")
    report = conform(find_target(f"llama.cpp:{files[0]}"), effort="quick")
    assert report.bugs == [], report


def test_a_test_of_one_axis_names_what_the_axes_before_it_found():
    test = conform_tests(
        lambda: decoder("gpt-numpy", faults=("pos_reset",)),
        axes=["cached", "truncate"],
        effort="quick",
        shrink=False,
    )
    for axis in ("cached", "truncate"):
        with pytest.raises(pytest.fail.Exception, match="positions restart in the chunk"):
            test(axis)


@pytest.mark.slow
def test_one_line_in_a_test_file_gives_one_test_an_axis(tmp_path):
    path = tmp_path / "test_mine.py"
    path.write_text(
        "from minikv.conform.testing import conform_tests\n"
        "from tests.conform.zoo import decoder\n"
        "test_mine = conform_tests(lambda: decoder('gpt-numpy', faults=('trunc_pos',)),\n"
        "    axes=['causality', 'truncate', 'window'], effort='quick')\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["-o", "addopts=", "-rA", "--rootdir", str(tmp_path), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert "1 failed, 2 passed, 1 skipped" in done.stdout, done.stdout
    assert "test_mine[truncate]" in done.stdout
    assert "looks like: the position after truncate (a guess)" in done.stdout


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.weights
@pytest.mark.parametrize("dtype", ["bfloat16,eager", "float32,sdpa"])
def test_real_weights_raise_no_alarm_without_a_twin(smollm2, dtype):
    """Massive activations: a row of a right cache moves by 7 % or a quarter in bfloat16."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    made = find_target(f"transformers:{smollm2}", dtype)
    report = conform(made, axes=["cached", "length"], effort="quick", length=14, twin="none")
    assert report.bugs == [], report
    if dtype == "bfloat16,eager":
        assert report["cached"].word is Word.UNDECIDED
        moved = {"AVX512": (0.2, 0.33), "AVX2": (0.065, 0.075)}
        instructions = torch.backends.cpu.get_cpu_capability()
        if instructions in moved:  # the page tells of these two
            least, most = moved[instructions]
            assert least < report["cached"].effect < most
        assert "float64" in report["cached"].decide


@pytest.mark.peers
@pytest.mark.slow
def test_nan_behind_left_padding_is_as_the_page_prints_it(capsys):
    pytest.importorskip("transformers")
    assert padding_nan.main() == 1
    page = (ROOT / "docs" / "conform.md").read_text(encoding="utf-8")
    shown = page.split("```text\ntransformers ")[1].split("```")[0]
    assert capsys.readouterr().out.splitlines()[1:] == shown.splitlines()[1:]  # but for versions


@pytest.mark.peers
@pytest.mark.slow
def test_the_root_of_nan_is_a_mask_of_float64_in_a_softmax_of_float32():
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    least = torch.full((2,), torch.finfo(torch.float64).min, dtype=torch.float64)
    weights = torch.softmax(least, -1, dtype=torch.float32)
    assert torch.isneginf(least.float()).all()
    assert weights.isnan().all()
    assert (0 * weights).isnan().all()
    texts = [[5], [7, 8, 9]]
    finite = {}
    for attention, dtype in (
        ("eager", "float64"),
        ("eager", "float32"),
        ("eager", "bfloat16"),
        ("sdpa", "float64"),
    ):
        made = TransformersTarget(tiny_of_field("llama", attention, dtype))
        rows = np.concatenate(made.batch(texts))
        finite[attention, dtype] = bool(np.isfinite(rows).all())
    assert [key for key, value in finite.items() if not value] == [("eager", "float64")]


@pytest.mark.peers
@pytest.mark.slow
def test_gpt2_counts_padding_as_positions_unless_they_are_given_and_generate_gives_them():
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    model = tiny_of_field("gpt2", "sdpa", "float32")
    for positions, word in (("default", Word.BUG), ("mask", Word.ROUNDING)):
        target = TransformersTarget(model, positions=positions)
        report = conform(target, axes=["left-padding"], effort="quick", length=24, shrink=False)
        assert report["left-padding"].word is word, report
    choose = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    ids = torch.tensor([[0, 0, 0, 5, 7]])
    mask = torch.tensor([[0, 0, 0, 1, 1]])
    with torch.no_grad():
        padded = model.generate(input_ids=ids, attention_mask=mask, **choose)[0, 5:]
        alone = model.generate(input_ids=ids[:, 3:], attention_mask=mask[:, 3:], **choose)[0, 2:]
    assert padded.tolist() == alone.tolist()


def way(bug: str) -> list[str]:
    """The dtype and the way that fails; which text does first differs among processors."""
    return re.sub(r"text \d+", "a text", bug).split(":")[:2]


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "transformers gpt2 sdpa float32 dynamic, no position ids",
        "transformers llama eager float32 dynamic",
    ],
)
def test_what_the_field_calls_a_bug_is_called_one_again(name):
    pytest.importorskip("transformers")
    figures = json.loads(field.FIGURES.read_text(encoding="utf-8"))
    [told] = [row["bugs"] for row in figures["rows"] if row["target"] == name]
    [make] = [make for known, _, make in field.contenders() if known == name]
    axes = ["left-padding", "left-padding-cached"]
    report = conform(make(), axes=axes, effort="quick", length=24, shrink=False)
    found = field.row(name, report)["bugs"]
    assert list(map(way, found)) == list(map(way, told)) != []


@pytest.mark.peers
@pytest.mark.slow
def test_budgets_that_presses_refuse_are_refused_again():
    pytest.importorskip("kvpress")
    figures = json.loads(field.FIGURES.read_text(encoding="utf-8"))
    name = "kvpress KnormPress on llama eager float32"
    [told] = [row["refused"] for row in figures["rows"] if row["target"] == name]
    [make] = [make for known, _, make in field.contenders() if known == name]
    report = conform(make(), axes=["budget"], effort="quick", length=24, shrink=False)
    assert field.refused(report) == told != ""
