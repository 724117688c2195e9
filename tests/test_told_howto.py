"""What the pages for users tell, and no other test holds, is so: numbers, names, promises."""

from __future__ import annotations

import doctest
import importlib
import io
import json
import os
import platform
import re
import shlex
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import config_cases
import numpy as np
import pytest
import safetensors.numpy
import speed_page
from bits import assert_same_bits, same_bits

import minikv
from minikv import arithmetic, generation
from minikv.arrays import to_numpy
from minikv.atlas import Kind, entries
from minikv.caches import POLICIES, Evicting
from minikv.cli import main, make_parser
from minikv.commands import answering, chat, find_commands, prove, slash
from minikv.commands.editing import history_file
from minikv.config import FAMILIES
from minikv.errors import ConfigError, InputError
from minikv.experiments import score
from minikv.extras import EXTRAS
from minikv.paper.claims import table_4_hellaswag, table_4_perplexity
from minikv.shapes import per_token, shape
from minikv.verify import THEOREMS
from minikv.weights import fetch, load_tensors, save_folder, weights_hash

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PEERS = ROOT / "tests" / "peers"
TINY = (ROOT / "tests" / "fixtures" / "tiny").as_posix()
WRITTEN = {path.stem: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
HOWTO, FAQ, INSTALL, INDEX = (
    " ".join(WRITTEN[name].split()) for name in ("howto", "faq", "install", "index")
)
WORDS = {3: "three", 14: "fourteen", 20: "Twenty", 30: "thirty", 62: "sixty-two"}
CONFIG = minikv.tiny_config()
EXACT = minikv.random_model(CONFIG, seed=1, arithmetic="exact")
TEXT = np.random.default_rng(0).integers(0, 97, 24).tolist()


# --- speed


RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
SPEED = {row["contender"]: row for row in speed_page.tables(RESULTS)[0]}  # tokens a second


def times_as_long(measure: str, contender: str, against: str) -> list[float]:
    """What a contender takes, in times of what another takes, the shortest text first."""
    columns = [name for name in SPEED[contender] if name.startswith(measure)]
    assert len(columns) == 3
    return [float(SPEED[against][name]) / float(SPEED[contender][name]) for name in columns]


@pytest.mark.parametrize("measure", ["decode at", "prefill of"])
def test_exact_on_numpy_took_two_to_three_times_the_time_and_more_the_longer_the_text(measure):
    assert "about two to three times the time, the more the longer the text" in HOWTO
    times = times_as_long(measure, "exact/numpy", "float32/numpy")
    assert times == sorted(times)
    assert [round(times[0]), round(times[-1])] == [2, 3]


def test_exact_with_numba_took_less_than_float32_on_numpy_to_decode_and_twice_for_a_prompt():
    assert 'less time than under `"float32"` on NumPy, a prompt about twice as much' in HOWTO
    assert max(times_as_long("decode at", "exact/numba", "float32/numpy")) < 1
    prompts = times_as_long("prefill of", "exact/numba", "float32/numpy")
    assert {round(times) for times in prompts} == {2}
    assert RESULTS.count("\n* processor: ") == 1


@pytest.mark.parametrize("contender", ["float32/numpy", "exact/numpy"])
@pytest.mark.parametrize("length", [512, 2048])
def test_a_token_with_a_cache_took_less_time_than_reading_the_text_once_more(contender, length):
    assert "The cache saves time" in FAQ
    token = 1 / float(SPEED[contender][f"decode at {length}"])
    assert token < length / float(SPEED[contender][f"prefill of {length}"])


# --- families


NAMES = {
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen 2.5",
    "qwen3": "Qwen 3",
    "gemma3_text": "Gemma 3",
}


def test_the_pages_name_every_family_that_loads():
    assert list(NAMES) == list(FAMILIES)
    *others, last = NAMES.values()
    assert f"{', '.join(others)} and {last}, from folders in Hugging Face's layout or GGUF" in FAQ
    rows = re.findall(r"(?m)^\| ([A-Z].*?) \| `(\w+)` \|", WRITTEN["howto"])
    assert [kind for _, kind in rows] == list(FAMILIES)
    assert all(name.startswith(NAMES[kind]) for name, kind in rows)


def named(text: str) -> object:
    """What a name such as ``decoder.mlp`` stands for in the library."""
    first, *rest = text.split(".")
    classes = {"Arithmetic": arithmetic.Arithmetic, "ModelConfig": minikv.ModelConfig}
    found = classes.get(first) or importlib.import_module(f"minikv.{first}")
    for name in rest:
        found = getattr(found, name)
    return found


def test_what_the_table_of_families_names_is_there():
    table = WRITTEN["howto"].partition("| family |")[2].partition("\n\n")[0]
    places = re.findall(r"`([\w.]+)`", " ".join(line.split("|")[-2] for line in table.split("\n")))
    assert len(places) > 8
    for place in places:
        assert callable(named(place)), place
    with pytest.raises(AttributeError):
        named("decoder.no_such_line")


def test_as_many_random_models_are_compared_with_transformers_as_the_page_says():
    others = (PEERS / "test_families.py").read_text(encoding="utf-8")
    llamas = (PEERS / "test_transformers.py").read_text(encoding="utf-8")
    families = re.findall(r'(?m)^    "(\w+)": \(transformers\.', others)
    assert ["llama", *families] == list(FAMILIES)
    (of_each,) = re.findall(r"(?m)^CASES = .* for seed in range\((\d+)\)\]$", others)
    (of_llama,) = re.findall(r"(?m)^SEEDS = range\((\d+)\)$", llamas)
    told = f"{WORDS[int(of_each)]} random models of each, {WORDS[int(of_llama)]} of Llama,"
    assert told in HOWTO
    for source in (others, llamas):
        (activations,) = re.findall(r"expected = 2 \+ (\d+) \* .*num_hidden_layers", source)
        assert f"{WORDS[int(activations)]} activations a block, to $10^{{-9}}$ in float64" in HOWTO
        assert "first_divergence(activations, peer_activations, 1e-9) is None" in source


def test_one_theorem_needs_windows():
    assert "With windows there is one more, T11:" in HOWTO
    assert [id for id, theorem in THEOREMS.items() if theorem.windowed] == ["T11"]


def test_a_setting_that_differs_between_both_levels_is_refused_by_their_names():
    inner = config_cases.base("gemma3_text") | {"tie_word_embeddings": True}
    given = {"model_type": "gemma3", "text_config": inner, "tie_word_embeddings": False}
    with pytest.raises(ConfigError, match=r"in config\.json and .* in text_config"):
        minikv.ModelConfig.from_dict(given)


# --- weights and models


def test_the_kept_hash_is_made_anew_when_a_file_has_another_size(tmp_path):
    tensors = minikv.random_tensors(CONFIG, 0)
    folder = save_folder(tmp_path / "model", CONFIG, tensors)
    first = weights_hash(load_tensors(folder, CONFIG))
    file = folder / "model.safetensors"
    before = file.stat()
    halves = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    safetensors.numpy.save_file(halves, file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert file.stat().st_size != before.st_size
    again = weights_hash(load_tensors(folder, CONFIG))
    assert again != first
    assert again == weights_hash({name: half.astype(np.float32) for name, half in halves.items()})


def test_the_model_that_is_fetched_first_is_the_one_whose_size_is_told():
    assert fetch.DEFAULT == "smollm2-135m-instruct"
    parameters = shape("smollm2-135m").num_parameters
    assert f"fetched first has {parameters / 1e6:.0f} million parameters" in FAQ
    assert f"{4 * parameters / 1e7:.0f}0 MB of disk for the first model" in INSTALL


def test_without_a_checkout_models_go_to_a_folder_of_the_users(monkeypatch, tmp_path):
    assert "else to `~/.cache/minikv`" in INSTALL
    for name in ("MINIKV_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    installed = tmp_path / "site-packages" / "minikv" / "weights" / "fetch.py"
    monkeypatch.setattr(fetch, "__file__", str(installed))
    assert fetch.home() == Path.home() / ".cache" / "minikv"


def test_threads_share_a_model_each_with_a_cache_of_its_own():
    def logits(start: int, model: minikv.Model) -> np.ndarray:
        cache = model.new_cache("residual", budget=2)
        return np.concatenate([model.forward([[id]], [cache]) for id in TEXT[start:12]])

    starts = range(4)
    expected = [logits(start, EXACT) for start in starts]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(starts)) as pool:
            model = minikv.random_model(CONFIG, seed=1, arithmetic="exact")  # no table made yet
            found = list(pool.map(lambda start: logits(start, model), starts))
    finally:
        sys.setswitchinterval(interval)
    for got, alone in zip(found, expected, strict=True):
        assert_same_bits(got, alone)


# --- activations


LENS = {
    "hook_embed",
    "hook_resid_pre",
    "ln1.hook_normalized",
    *(f"attn.hook_{name}" for name in ("q", "k", "v", "rot_q", "rot_k")),
    *(f"attn.hook_{name}" for name in ("attn_scores", "pattern", "z")),
    "hook_attn_out",
    "hook_resid_mid",
    "ln2.hook_normalized",
    *(f"mlp.hook_{name}" for name in ("pre", "pre_linear", "post")),
    "hook_mlp_out",
    "hook_resid_post",
    "ln_final.hook_normalized",
}
"""As TransformerLens lists the hooks of a model with RMSNorm, rotations and a gated MLP."""


def test_the_names_of_activations_are_transformerlenss():
    names = EXACT.run_with_cache(TEXT)[1]
    assert {re.sub(r"^blocks\.\d+\.", "", name) for name in names} == LENS


def test_hook_normalized_is_after_the_norms_weight():
    tensors = minikv.random_tensors(CONFIG, 1)
    name = "model.layers.0.input_layernorm.weight"
    tensors[name] = np.zeros_like(tensors[name])
    activations = minikv.Model(minikv.build(CONFIG, tensors)).run_with_cache(TEXT)[1]
    assert activations["blocks.0.hook_resid_pre"].any()
    assert not activations["blocks.0.ln1.hook_normalized"].any()


def test_an_observer_sees_logits_before_a_temperature_a_penalty_or_a_cut():
    drawing = {"temperature": 2.0, "repetition_penalty": 1.5, "top_k": 2, "top_p": 0.5}
    seen = []
    drawn = EXACT.generate(
        TEXT, 4, seed=3, min_p=0.3, observer=lambda logits, _: seen.append(logits.copy()), **drawing
    )
    tokens = list(drawn)
    assert_same_bits(np.array(seen), EXACT.logits([*TEXT, *tokens])[len(TEXT) - 1 : -1])


# --- Python and commands as they are written


def test_the_pythons_of_the_page_run(capsys):
    """On the toy model, which has fewer blocks."""
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```", WRITTEN["howto"])
    assert len(blocks) == 6
    code = "\n".join(blocks).replace("path/to/folder", TINY).replace("blocks.7.", "blocks.1.")
    names: dict[str, object] = {}
    exec(code, names)
    assert len(capsys.readouterr().out.splitlines()) > 3
    assert len(names["new"]) == 8
    assert len(names["tokens"]) == 32
    assert len(names["model"].complete("Hello", 2, top_log_probs=3).top[0]) == 3


LINE = re.compile(r"(?m)^ *(?:\.venv/bin/minikv|minikv|\./run) (.+)$|`minikv ([^`]+)`")


def command_lines() -> list[tuple[str, str]]:
    """Every command line of the pages, without the word that starts minikv, with its page."""
    found = []
    for name in ("howto", "install", "faq", "index"):
        for match in LINE.finditer(WRITTEN[name]):
            line = match[1] or match[2]
            if line.split()[0] in find_commands():
                found.append((name, line))
    return found


def test_the_command_lines_of_the_pages_are_understood():
    lines = command_lines()
    assert len(lines) > 25
    parser = make_parser()
    for name, line in lines:
        try:
            parser.parse_args(shlex.split(line))
        except InputError as error:
            pytest.fail(f"docs/{name}.md: minikv {line}: {error}")
    with pytest.raises(InputError):
        parser.parse_args(["generate", "Hello", "--no-such-option"])


def test_the_lines_for_table_4_have_the_papers_windows_and_count_and_its_data_are_not_here():
    lines = [line for _, line in command_lines()]
    (text,) = [line for line in lines if line.startswith("score wiki.test.raw ")]
    (asked,) = [line for line in lines if line.startswith("score hellaswag_val.jsonl ")]
    windows = [int(tokens) for tokens in re.findall(r"window@(\d+)", text)]
    assert windows == list(table_4_perplexity.WINDOWS)
    (count,) = re.findall(r"--limit (\d+)", asked)
    (window,) = re.findall(r"window@(\d+)", asked)
    told = table_4_hellaswag.CLAIM.says
    assert f"on {count} questions" in told
    assert f"a window of {window};" in told
    for line in (text, asked):
        assert not list((ROOT / "minikv").rglob(line.split()[1]))


def test_score_tells_three_ways_of_being_the_likeliest_by_their_names(monkeypatch, capsys):
    shares = {"characters": 0.1, "tokens": 0.2, "": 0.3}
    monkeypatch.setattr(score, "accuracy", lambda scored, length="characters": shares[length])
    assert main(["score", "--model", TINY, "--limit", "1", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["by characters"], row["by tokens"], row["in sum"]) == (0.1, 0.2, 0.3)


def test_a_line_is_streamed_before_the_next_token_is_made(monkeypatch, capsys):
    told = []
    finite = generation.finite_logits

    def made(logits):
        told.append("made")
        return finite(logits)

    monkeypatch.setattr(generation, "finite_logits", made)
    monkeypatch.setattr(answering, "print_json", lambda *given, **options: told.append("line"))
    words = ["generate", "Hello", "--model", TINY, "--max-new-tokens", "3", "--json", "--stream"]
    assert main(words) == 0
    assert told[:6] == ["made", "line"] * 3


def test_what_the_page_lists_can_be_typed_in_a_chat():
    listed = HOWTO.partition("In a chat `/help` lists what can be typed:")[2].partition(". ")[0]
    typed = re.findall(r"`/(\w+)", listed)
    assert len(typed) == 4
    assert set(typed) <= slash.COMMANDS.keys()


def test_lines_of_a_chat_are_kept_unless_no_history_is_asked_for(monkeypatch):
    kept = []

    def reader(history):
        def read(prompt):
            raise EOFError

        kept.append(history)
        return read

    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(chat, "reader", reader)
    for options in ([], ["--no-history"]):
        assert main(["chat", "--model", TINY, *options]) == 0
    assert kept == [history_file(), None]


def test_the_pages_policy_is_measured_from_a_file_in_the_folder(tmp_path, monkeypatch, capsys):
    examples = doctest.DocTestParser().get_examples(WRITTEN["howto"])
    (policy,) = [example.source for example in examples if "class Knorm" in example.source]
    imports = "import minikv\nimport numpy as np\n\n"
    (tmp_path / "mine.py").write_text(imports + policy, encoding="utf-8")
    (tmp_path / "texts.txt").write_text("=== a\nThe cat sat on the mat.\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(POLICIES, "knorm", None)  # so that it is forgotten afterwards
    assert "minikv compare --policies mine:Knorm,h2o,window --budgets" in HOWTO
    words = ["--model", TINY, "--prompts", "texts.txt", "--budgets", "4", "--quick", "--json"]
    assert main(["compare", "--policies", "mine:Knorm,h2o,window", *words]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["policy"] for row in rows] == ["mine:Knorm", "h2o", "window"]
    words = ["--model", TINY, "--max-new-tokens", "3", "--json"]
    told = []
    for cache in ("mine:Knorm", "window"):
        line = ["generate", "Once upon a time", "--cache", cache, "--budget", "4", *words]
        assert main(line) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0]["cache_bytes"] == told[1]["cache_bytes"] < told[0]["full_cache_bytes"]
    sys.modules.pop("mine")


def test_a_policy_of_ones_own_is_cut_and_kept_and_reads_the_keys_of_another_backend(monkeypatch):
    pytest.importorskip("array_api_strict", reason="the backend needs it, not installed here")

    class Short(Evicting):
        policy = "short"
        per_head = True

        def priority(self, rows):
            return -np.linalg.norm(to_numpy(rows.keys), axis=-1)

    monkeypatch.setitem(POLICIES, "short", Short)
    found = []
    for backend in ("numpy", "array_api_strict"):
        model = minikv.random_model(CONFIG, 1, "exact", backend=backend)
        cache = model.new_cache("short", budget=6)
        model.forward([TEXT[:12]], [cache])
        cut = cache.fork()
        cut.truncate(9)
        kept = model.new_cache("short", budget=6)
        kept.load_state(*cut.state())
        rows = [to_numpy(model.forward([TEXT[9:]], [one], "all")) for one in (cut, kept, cache)]
        assert_same_bits(rows[0], rows[1])
        assert not same_bits(rows[0], rows[2])
        found.append(rows[0])
    assert_same_bits(*found)


def test_the_tables_of_the_experiments_are_of_the_commands_that_the_page_names():
    sentence = HOWTO.partition("(a model cannot be pickled). ")[2].partition(" made the tables")[0]
    commands = re.findall(r"`(?:minikv )?(\w+)`", sentence)
    tables = [path.read_text(encoding="utf-8") for path in DOCS.glob("experiments/*.txt")]
    assert {table.split()[2] for table in tables} == set(commands)
    assert all(table.startswith("$ minikv ") for table in tables)


def test_the_bytes_of_a_known_model_are_printed(monkeypatch, capsys):
    monkeypatch.setattr(prove, "prove_shape", lambda *given: [])
    assert main(["prove", "--shape", "smollm2-135m"]) == 0
    printed = capsys.readouterr().out
    rows = per_token(shape("smollm2-135m"))
    assert len(rows) > 3
    for row in rows.values():
        single, half = (f"{number:,g}" for number in row.values())
        assert re.search(rf"\s{single}\s+{half}\n", printed)


def test_the_doctor_looks_at_what_the_page_says(capsys):
    assert main(["doctor", "--json"]) == 0
    looked = {one["what"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert {"NumPy", "memory", "disk", "model", "exact arithmetic"} <= looked.keys()
    assert {f"extra {name}" for name in EXTRAS} <= looked.keys()
    assert f"Python {platform.python_version()}" in looked["minikv"]["found"]


# --- the repository


def test_run_has_the_words_of_its_own_that_the_page_lists():
    script = (ROOT / "run").read_text(encoding="utf-8").partition("case ${1-} in")[2]
    words = " | ".join(re.findall(r"(?m)^    ([\w |]+)\)$", script)).split(" | ")
    own = [word for word in words if word not in find_commands()]
    listed = re.findall(r"(?m)^\| `\./run (\w+)` \|", WRITTEN["install"])
    assert sorted(own) == sorted(listed)
    assert f"it knows {WORDS[len(own)]} words of its own:" in INSTALL


def test_the_wheel_and_the_extras_that_the_page_installs_are_the_projects():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f'pip install "minikv-{minikv.__version__}-py3-none-any.whl[chat,fetch]"' in INSTALL
    given = ",".join(re.findall(r'[.l]\[([\w,]+)\]"', INSTALL)).split(",")
    assert set(given) == {"chat", "fetch", "test", "plots"}
    assert set(given) <= project["optional-dependencies"].keys()
    made = (ROOT / ".ci" / "run").read_text(encoding="utf-8").partition("wheel() {")[2]
    assert "python -m pip wheel --quiet --no-deps " in made.partition("\n}")[0]
    assert "which `pip wheel --no-deps .` makes" in INSTALL


def test_chapter_3_has_the_sections_that_the_page_tells_of():
    assert "on one number of a real model, and how sums without an order are made" in FAQ
    chapter = (ROOT / "notebooks" / "03_floating_point.py").read_text(encoding="utf-8")
    sections = dict(re.findall(r"(?ms)^# ## 3\.\d (.+?)\n(.*?)(?=^# ## )", chapter))
    assert 'minikv.load("smollm2-' in sections["One number of the model, in a thousand orders"]
    assert "Sums that never round" in sections


def test_the_home_page_counts_what_is_in_the_atlas():
    ways = sum(entry.kind is not Kind.STUDY for entry in entries().values())
    for page in (INDEX, (ROOT / "README.md").read_text(encoding="utf-8")):
        assert f"{WORDS[ways]} ways of treating the cache" in page
