"""Text to ids and back: references, streaming, chat templates, bad input."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path

import pytest
import tokenizers
from byte_tokenizer import beside
from hypothesis import given
from hypothesis import strategies as st
from llama_tokenizer import PIECES, llama_tokenizer

from minikv.errors import TokenizerError
from minikv.tokenizer import StreamDecoder, Tokenizer

TINY = Path(__file__).parent / "fixtures" / "tiny"
REFERENCES = {
    fixture: json.loads((Path(__file__).parent / "reference" / name).read_text(encoding="utf-8"))
    for fixture, name in (("smollm2", "smollm2-135m-instruct.json"), ("gemma", "gemma-3-270m.json"))
}
TOY = Tokenizer.from_folder(TINY)
HELLO = [{"role": "user", "content": "hi {{ 7 * 7 }} <b>"}]


@pytest.fixture
def copy(tmp_path):
    """A copy of the toy model's tokenizer, to be spoiled."""
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(TINY / name, tmp_path)
    return tmp_path


def with_template(folder: Path, template: object) -> Tokenizer:
    settings = json.loads((TINY / "tokenizer_config.json").read_text())
    settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return Tokenizer.from_folder(folder)


# Against references


@pytest.mark.weights
@pytest.mark.parametrize("fixture", REFERENCES)
def test_tokenisations_are_those_of_transformers_and_llama_cpp(fixture, request):
    tokenizer = Tokenizer.from_folder(request.getfixturevalue(fixture))
    cases = REFERENCES[fixture]["tokenization"]
    assert len(cases) >= 10
    for case in cases:
        ids = tokenizer.encode(case["text"], add_special=False)
        assert ids == case["ids"], case["text"]
        assert tokenizer.decode(ids, skip_special=False) == case["text"]
    for case in REFERENCES[fixture]["generation"]:  # ... and what stands before every text
        assert tokenizer.encode(case["prompt"]) == case["ids"]
        assert tokenizer.decode(case["ids"]) == case["prompt"]


@pytest.mark.weights
def test_the_real_tokenizer_knows_its_special_tokens_and_chat_format(smollm2):
    tokenizer = Tokenizer.from_folder(smollm2)
    assert tokenizer.vocab_size == 49_152
    assert tokenizer.eos_ids == (2,)
    assert tokenizer.special_tokens["bos_token"] == "<|im_start|>"
    text = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}])
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.encode(text, add_special=False).count(1) == 3


@pytest.mark.weights
def test_the_real_gemma_tokenizer_falls_back_to_bytes_and_keeps_spaces(gemma):
    tokenizer = Tokenizer.from_folder(gemma)
    assert tokenizer.vocab_size == 262_144
    assert tokenizer.eos_ids == (1,)
    assert tokenizer.special_tokens["bos_token"] == "<bos>"
    byte = tokenizer.backend.token_to_id("<0x00>")
    text = "a\u0c5c \U00016fe4  b\t\r\n   \x07▁ <h1>"
    ids = tokenizer.encode(text)
    assert ids[0] == 2
    assert any(byte <= token < byte + 256 for token in ids)
    assert tokenizer.decode(ids) == text.replace("▁", " ")  # a space is stored as that letter
    assert "".join(tokenizer.stream(ids)) == tokenizer.decode(ids)
    # Merging the neighbours of highest score, one after the other, is what SentencePiece does.
    pieces = json.loads(tokenizer.backend.to_str())["model"]["vocab"]
    for text in ("unbelievably", "aaaaaaaaaaaaa", "internationalisation", "xyzzyx", "   of\u0c5c"):
        score = {piece: -index for piece, index in pieces.items() if not piece.startswith("<")}
        assert tokenizer.encode(text.strip(), False) == spell(text.strip(), score, pieces)


@pytest.mark.peers
@pytest.mark.weights
def test_the_real_folder_is_read_alike_by_transformers(smollm2):
    transformers = pytest.importorskip("transformers", reason="needs the extra `peers`")
    theirs = transformers.AutoTokenizer.from_pretrained(smollm2)
    ours = Tokenizer.from_folder(smollm2)
    talk = [
        {"role": "system", "content": "Be brief. é🙂"},
        {"role": "user", "content": "1 + 22?"},
        {"role": "assistant", "content": " 23\n"},
        {"role": "user", "content": ""},
    ]
    for prompt in (True, False):
        text = theirs.apply_chat_template(talk, tokenize=False, add_generation_prompt=prompt)
        assert ours.apply_chat_template(talk, prompt) == text
        assert ours.encode(text, add_special=False) == theirs.encode(text, add_special_tokens=False)


# Round trips and streaming


@given(st.text())
def test_decode_inverts_encode(text):
    assert TOY.decode(TOY.encode(text), skip_special=False) == text


def test_digits_are_split_one_by_one_and_special_tokens_are_one_token():
    assert len(TOY.encode("1234567890")) == 10
    ids = TOY.encode("<|im_start|>the<|im_end|>")
    assert (ids[0], ids[-1]) == (1, 2)
    assert TOY.encode("<|im_start |>")[0] != 1
    assert TOY.decode(TOY.encode("<|im_start|>the<|im_end|>")) == "the"
    assert TOY.encode("") == []


@given(st.text(), st.booleans())
def test_streamed_text_joins_to_the_whole_and_never_shows_half_a_character(text, skip):
    ids = TOY.encode(text)
    pieces = list(TOY.stream(ids, skip))
    assert "".join(pieces) == TOY.decode(ids, skip)
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)
    assert all(pieces)


@given(st.lists(st.integers(0, TOY.vocab_size - 1)), st.booleans())
def test_streaming_any_ids_joins_to_the_whole(ids, skip):
    assert "".join(TOY.stream(ids, skip)) == TOY.decode(ids, skip)


def test_a_character_comes_out_with_its_last_byte_and_not_before():
    ids = TOY.encode("é🙂")
    assert len(ids) == 6  # no merges outside ASCII: one token a byte
    decoder = StreamDecoder(TOY)
    assert [decoder.put(token) for token in ids] == ["", "é", "", "", "", "🙂"]
    assert decoder.flush() == ""
    assert [decoder.put(token) for token in ids[:4]] == ["", "é", "", ""]
    assert decoder.flush() == "\ufffd"
    assert decoder.put(TOY.encode("a")[0]) == "a"


def test_decoding_token_by_token_does_show_halves():
    # The control: what the stream decoder is for.
    ids = TOY.encode("é")
    assert "".join(TOY.decode([token]) for token in ids) == "\ufffd\ufffd"


def test_a_decoder_that_strips_the_first_space_streams_like_the_whole(copy):
    spec = json.loads((copy / "tokenizer.json").read_text())
    spec["decoder"] = {
        "type": "Sequence",
        "decoders": [spec["decoder"], {"type": "Strip", "content": " ", "start": 1, "stop": 0}],
    }
    (copy / "tokenizer.json").write_text(json.dumps(spec))
    tokenizer = Tokenizer.from_folder(copy)
    ids = tokenizer.encode(" the stream is the state")
    assert tokenizer.decode(ids) == "the stream is the state"
    assert "".join(tokenizer.stream(ids)) == "the stream is the state"


# SentencePiece vocabularies, as GGUF files hold them


def spell(text: str, score: dict[str, float], ids: dict[str, int]) -> list[int]:
    """SentencePiece's BPE: join the best two neighbours, the first of equals, until none fit."""
    pieces = list(text.replace(" ", "▁"))
    while True:
        pairs = [
            (score.get(a + b, -1e9), -at) for at, (a, b) in enumerate(itertools.pairwise(pieces))
        ]
        best, at = max(pairs, default=(-1e9, 0))
        if best == -1e9:
            break
        pieces[-at : -at + 2] = [pieces[-at] + pieces[-at + 1]]
    spelled = []
    for piece in pieces:
        known = piece in score
        spelled += [ids[piece]] if known else [ids[f"<0x{b:02X}>"] for b in piece.encode()]
    return spelled


WORDS = ["▁", "a", "b", "é", "▁a", "ab", "ba", "▁ab", "aba", "▁aba", "éb", "b▁", "b▁é", "▁▁a"]


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory):
    """A small vocabulary with byte tokens, converted from the fields of a GGUF file."""
    pytest.importorskip("gguf", reason="needs the extra `fetch`")
    from minikv.weights import gguf

    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    octets = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = [*special, "\n\n", "  ", "   ", *octets, *WORDS]
    fields = {
        "general.architecture": "gemma3",
        "gemma3.context_length": 64,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * 4 + [4] * 3 + [6] * 256 + [1] * len(WORDS),
        "tokenizer.ggml.scores": [-1e3] * 7 + [0.0] * 256 + [-float(i) for i in range(len(WORDS))],
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.add_space_prefix": False,
    }
    folder = tmp_path_factory.mktemp("sentencepiece")
    for name, text in gguf._tokenizer_files(fields).items():
        (folder / name).write_text(text, encoding="utf-8")
    return Tokenizer.from_folder(folder), {token: index for index, token in enumerate(tokens)}


@given(st.text("ab é▁c🙂"))
def test_a_sentencepiece_vocabulary_spells_as_sentencepiece_does(sentencepiece, text):
    tokenizer, ids = sentencepiece
    # Runs of spaces are tokens by themselves: met first where they are written as letters.
    score = {word: -float(rank) for rank, word in enumerate(WORDS)} | {"▁▁": 2.0, "▁▁▁": 1.0}
    ids = ids | {"▁▁": ids["  "], "▁▁▁": ids["   "]}
    expected = []
    for part in re.split("(▁▁▁|▁▁)", text):
        expected += [ids[part]] if part in ("▁▁▁", "▁▁") else spell(part, score, ids)
    assert tokenizer.encode(text, add_special=False) == expected
    assert tokenizer.encode(text) == [2, *expected]
    assert tokenizer.decode(expected) == text.replace("▁", " ")


def test_runs_of_spaces_are_met_as_the_hubs_tokenizer_meets_them(sentencepiece):
    """Right values: where google's tokenizer.json differs from one that looks for spaces first."""
    tokenizer, ids = sentencepiece
    two = ids["  "]
    three = ids["   "]
    one = ids["▁"]
    for text, expected in (
        ("a  b", [ids["a"], two, ids["b"]]),
        ("▁▁", [two]),
        ("▁▁ ", [two, one]),
        (" ▁▁", [one, two]),
        ("   ", [three]),
    ):
        assert tokenizer.encode(text, False) == expected, text


def test_merges_in_another_order_spell_otherwise(sentencepiece):
    # The control: with the scores turned around, the same words come apart in other places.
    tokenizer, ids = sentencepiece
    score = {word: float(rank) for rank, word in enumerate(WORDS)}
    assert tokenizer.encode("ab é", False) != spell("ab é", score, ids)


@given(st.lists(st.integers(0, 4 + 3 + 256 + len(WORDS) - 1)), st.booleans())
def test_streaming_any_ids_of_a_byte_fallback_joins_to_the_whole(sentencepiece, ids, skip):
    tokenizer, _ = sentencepiece
    assert "".join(tokenizer.stream(ids, skip)) == tokenizer.decode(ids, skip)


def test_a_run_of_bytes_comes_out_when_it_ends(sentencepiece):
    tokenizer, ids = sentencepiece
    run = [ids["<0xF0>"], ids["<0x9F>"], ids["<0x99>"], ids["<0x82>"]]
    decoder = StreamDecoder(tokenizer)
    assert [decoder.put(token) for token in [*run, ids["a"], run[0]]] == ["", "", "", "", "🙂a", ""]
    assert decoder.flush() == "\ufffd"
    assert "".join(tokenizer.stream([*run, run[0]])) == "\ufffd" * 5


SPLIT = {
    "smollm": "I|'|LL|Ġdo|Ġ|1|2|ĊĊĠ|Ġf|(|x|)!=|ĊĠ|4|5|6|7",
    "qwen2": "I|'LL|Ġdo|Ġ|1|2|ĊĊ|Ġ|Ġf|(x|)!=Ċ|Ġ|4|5|6|7",
    "llama-bpe": "I|'LL|Ġdo|Ġ|12|ĊĊ|Ġ|Ġf|(x|)!=Ċ|Ġ|456|7",
}


@pytest.mark.parametrize("pattern", SPLIT)
def test_words_of_byte_level_vocabularies_split_as_their_models_do(pattern):
    pytest.importorskip("gguf", reason="needs the extra `fetch`")
    from minikv.weights import gguf

    spec = json.loads((TINY / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].get)
    files = gguf._tokenizer_files(
        {
            "general.architecture": "qwen2",
            "qwen2.context_length": 64,
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": pattern,
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [1] * len(tokens),
            "tokenizer.ggml.merges": spec["model"]["merges"],
            "tokenizer.ggml.add_bos_token": False,
        }
    )
    backend = tokenizers.Tokenizer.from_str(files["tokenizer.json"])
    words = backend.pre_tokenizer.pre_tokenize_str("I'LL do 12\n\n  f(x)!=\n 4567")
    assert "|".join(text for text, _ in words) == SPLIT[pattern]
    text = "é e\u0301 12 f(x) 🙂"
    composed = text.replace("e\u0301", "é") if pattern == "qwen2" else text
    assert backend.decode(backend.encode(text).ids) == composed


# Chat templates


def test_a_template_gets_messages_as_data_and_not_as_code():
    text = TOY.apply_chat_template(HELLO)
    assert text == "<|im_start|>user\nhi {{ 7 * 7 }} <b><|im_end|>\n<|im_start|>assistant\n"
    assert (
        TOY.apply_chat_template(HELLO, add_generation_prompt=False) + ("<|im_start|>assistant\n")
        == text
    )


def test_templates_are_found_where_models_keep_them(copy):
    assert with_template(copy, "A{{ bos_token }}").apply_chat_template([]) == "A<|im_start|>"
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    assert with_template(copy, named).apply_chat_template([]) == "D"
    (copy / "chat_template.jinja").write_text("J", encoding="utf-8")
    assert Tokenizer.from_folder(copy).apply_chat_template([]) == "J"


def test_templates_have_the_helpers_that_they_rely_on(copy):
    text = "{{ messages | tojson }}{% for m in messages %}{% break %}{% endfor %}"
    tokenizer = with_template(copy, text + "{{ strftime_now('%Y')|length }}")
    assert tokenizer.apply_chat_template([{"role": "é", "content": "<"}]) == (
        '[{"role": "é", "content": "<"}]4'
    )


def test_lines_that_hold_only_a_tag_leave_no_trace(copy):
    tokenizer = with_template(copy, "{% if true %}\nA\n   {% endif %}\nB")
    assert tokenizer.apply_chat_template([]) == "A\nB"


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{% if %}",
        "{{ 1 / 0 }}",
        "{{ nope.nope }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__ }}",
    ],
)
def test_a_template_that_fails_or_reaches_out_is_refused(copy, template):
    with pytest.raises(TokenizerError, match="template refused"):
        with_template(copy, template).apply_chat_template(HELLO)


@pytest.mark.parametrize(
    "template",
    [None, 5, [], [{"name": "other", "template": "x"}], [{"name": [1], "template": "x"}]],
)
def test_a_model_without_a_template_says_so(copy, template):
    with pytest.raises(TokenizerError, match="no chat template"):
        with_template(copy, template).apply_chat_template(HELLO)


@pytest.mark.parametrize("message", ["hi", {"content": "x"}, None, 5])
def test_messages_need_a_role(message):
    with pytest.raises(TokenizerError, match="'role' and 'content'"):
        TOY.apply_chat_template([message])


# Special tokens and bad input


def test_every_source_of_end_tokens_counts(copy):
    assert TOY.eos_ids == (2,)
    (copy / "generation_config.json").write_text('{"eos_token_id": [0, 2, 7, "9", true]}')
    assert Tokenizer.from_folder(copy).eos_ids == (2, 0, 7)


def test_special_tokens_may_be_objects(copy):
    settings = {"eos_token": {"content": "<|endoftext|>", "lstrip": False}, "pad_token": None}
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = Tokenizer.from_folder(copy)
    assert tokenizer.special_tokens == {"eos_token": "<|endoftext|>"}
    assert tokenizer.eos_ids == (0, 2)  # config.json says 2


def test_what_a_model_puts_around_a_text_can_be_left_out(copy):
    spec = json.loads((copy / "tokenizer.json").read_text())
    start = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [start, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [],
        "special_tokens": {
            "<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}
        },
    }
    (copy / "tokenizer.json").write_text(json.dumps(spec))
    tokenizer = Tokenizer.from_folder(copy)
    assert tokenizer.encode("the") == [1, *TOY.encode("the")]
    assert tokenizer.encode("the", add_special=False) == TOY.encode("the")


@pytest.mark.parametrize("text", [None, b"bytes", 5, ["a"], "half \ud800", "\udfff"])
def test_text_that_is_no_text_is_refused(text):
    with pytest.raises(TokenizerError, match="expected"):
        TOY.encode(text)


def test_an_id_without_a_token_is_no_text():
    """A model's vocabulary may be padded beyond its tokenizer's."""
    ids = TOY.encode("the cat é")
    at = len(ids) // 2
    assert TOY.vocab_size == 320
    assert TOY.decode([*ids[:at], 320, 10**6, *ids[at:]]) == "the cat é"
    assert "".join(TOY.stream([*ids[:at], 320, *ids[at:]])) == "the cat é"


@pytest.mark.parametrize("token", [-1, 2**32, 2**70, 1.0, "a", None])
def test_ids_outside_the_vocabulary_are_refused(token):
    with pytest.raises(TokenizerError, match="token id"):
        TOY.decode([5, token])
    with pytest.raises(TokenizerError, match="token id"):
        StreamDecoder(TOY).put(token)


def test_numpy_integers_are_ids():
    np = pytest.importorskip("numpy")
    assert TOY.decode(np.array(TOY.encode("the"))) == "the"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "\udcff"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", "{"),
        ("config.json", "[" * 99_999),
        ("generation_config.json", "5"),
        ("chat_template.jinja", "\udcff"),
    ],
)
def test_a_damaged_file_is_named(copy, name, content):
    (copy / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(TokenizerError, match=name):
        Tokenizer.from_folder(copy)


def changed(folder: Path, **parts: object) -> Tokenizer:
    spec = json.loads((folder / "tokenizer.json").read_text()) | parts
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    return Tokenizer.from_folder(folder)


def use(folder: Path, part: dict) -> None:
    tokenizer = changed(folder, **part)
    tokenizer.decode(tokenizer.encode("h h"))


def test_a_stored_truncation_or_padding_does_not_touch_a_prompt(copy):
    cut = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    pad = {
        "strategy": {"Fixed": 100},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 7,
        "pad_type_id": 0,
        "pad_token": "x",
    }
    for part in ({"truncation": cut}, {"padding": pad}):
        assert changed(copy, **part).encode("hello world") == TOY.encode("hello world")


@pytest.mark.parametrize(
    "part",
    [
        {"model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"a": 0}}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "CAAAAP////////8="}},
        {
            "post_processor": {
                "type": "TemplateProcessing",
                "pair": [],
                "special_tokens": {},
                "single": [{"SpecialToken": {"id": "zz", "type_id": 0}}],
            }
        },
        {"decoder": {"type": "Strip", "content": "h", "start": 99, "stop": 99}},
    ],
)
def test_a_tokenizer_that_makes_its_package_fail_or_panic_is_refused(copy, part):
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot") as caught:
        use(copy, part)
    assert "\n" not in str(caught.value)


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(TokenizerError, match=r"tokenizer\.json does not exist"):
        Tokenizer.from_folder(tmp_path)


# A part of a text is not a text of its own


@pytest.fixture(scope="module")
def llama() -> Tokenizer:
    return llama_tokenizer()


def test_a_continuation_keeps_its_first_space(llama):
    prompt = llama.encode("The is")
    new = [llama.backend.token_to_id("▁Paris")]
    assert llama.decode(prompt + new) == "The is Paris"
    assert llama.decode(new, after=prompt) == " Paris"
    assert "".join(llama.stream(new, after=prompt)) == " Paris"
    assert StreamDecoder(llama, after=prompt).put(new[0]) == " Paris"
    # The control: as a text of its own it loses the space.
    assert llama.decode(new) == "".join(llama.stream(new)) == "Paris"


def test_a_part_is_written_as_it_stands_in_its_text(llama):
    whole = llama.encode("The is Paris")
    assert llama.encode("The is") + llama.encode(" Paris", after="The is") == whole
    assert llama.encode("The is") + llama.encode(" Paris") != whole  # the control
    with_start = llama.encode("is", after="<s>", add_special=False)
    assert with_start == llama.encode("<s>is", False)[1:]


def test_a_part_whose_token_would_reach_over_the_seam_is_a_text_of_its_own(llama):
    assert llama.encode("aris", after="The P") == llama.encode("aris", False)


@given(ids=st.lists(st.integers(0, len(PIECES) + 10)), cut=st.integers(0, 20))
def test_a_text_is_its_parts_wherever_it_is_cut(llama, ids, cut):
    before = llama.decode(ids[:cut])
    after = llama.decode(ids[cut:], after=ids[:cut])
    whole = llama.decode(ids)
    assert "".join(llama.stream(ids[cut:], after=ids[:cut])) == after
    if whole.startswith(before):  # the cut falls between two characters
        assert before + after == whole


# What stands beside tokenizer.json; right values from transformers 5.2, add_bos_token from 4.57


TOKEN = {"content": "<|im_start|>", "lstrip": False, "normalized": False, "special": True}
TEMPLATE = "{{ bos_token }}{{ messages[0].content }}"


NAMED = {"bos_token": "<|bos|>", "eos_token": "<|eos|>"}


@pytest.mark.parametrize(
    ("settings", "files", "named", "ends"),
    [
        (NAMED, {}, NAMED, (257,)),
        ({}, {"special_tokens_map": NAMED}, NAMED, (257,)),
        (
            {},
            {"special_tokens_map": {"bos_token": {"content": "<|bos|>"}}},
            {"bos_token": "<|bos|>"},
            (),
        ),
        ({"eos_token": "<|bos|>"}, {"special_tokens_map": NAMED}, NAMED, (257,)),
        (
            {"eos_token": "<|bos|>", "added_tokens_decoder": {}},
            {"special_tokens_map": NAMED},  # which transformers does not read then
            {"eos_token": "<|bos|>"},
            (256,),
        ),
        ({"eos_token": "<|im_end|>"}, {}, {"eos_token": "<|im_end|>"}, (258,)),
        ({"image_token": "<|bos|>"}, {}, {"image_token": "<|bos|>"}, ()),
    ],
)
def test_special_tokens_are_named_where_models_name_them(tmp_path, settings, files, named, ends):
    tokenizer = beside(tmp_path, settings, **files)
    assert tokenizer.special_tokens == named
    assert tokenizer.eos_ids == ends


@pytest.mark.parametrize(
    ("settings", "files"),
    [
        ({"added_tokens_decoder": {"258": TOKEN}}, {}),
        ({}, {"added_tokens": {"<|im_start|>": 258}}),
        ({"eos_token": "<|im_start|>"}, {}),
        ({"additional_special_tokens": ["<|im_start|>"]}, {}),
        ({"extra_special_tokens": {"start": "<|im_start|>"}}, {}),
        ({}, {"special_tokens_map": {"additional_special_tokens": [TOKEN]}}),
    ],
)
def test_added_tokens_are_one_token_wherever_they_stand(tmp_path, settings, files):
    tokenizer = beside(tmp_path, settings, **files)
    assert tokenizer.encode("a<|im_start|>") == [64, 258]
    assert tokenizer.vocab_size == 259


def test_a_token_that_nothing_adds_falls_into_pieces(tmp_path):
    assert len(beside(tmp_path).encode("a<|im_start|>")) == 1 + len("<|im_start|>")


@pytest.mark.parametrize(
    ("settings", "files", "name"),
    [
        ({"added_tokens_decoder": {"300": TOKEN}}, {}, r"tokenizer_config\.json.*id 300"),
        ({"added_tokens_decoder": {"x": TOKEN}}, {}, r"tokenizer_config\.json.*'x'"),
        ({"added_tokens_decoder": {"258": 5}}, {}, r"tokenizer_config\.json.*'258'"),
        ({}, {"added_tokens": {"<|im_start|>": -1}}, r"added_tokens\.json.*-1"),
        ({}, {"added_tokens": ["<|im_start|>"]}, r"added_tokens\.json"),
        ({}, {"special_tokens_map": 5}, r"special_tokens_map\.json"),
    ],
)
def test_what_stands_beside_and_cannot_be_is_refused_by_its_file(tmp_path, settings, files, name):
    with pytest.raises(TokenizerError, match=name):
        beside(tmp_path, settings, **files)


@pytest.mark.parametrize(
    ("settings", "ids"),
    [
        ({}, [39]),
        ({"add_bos_token": True}, [39]),  # a class that does not read it
        ({"add_bos_token": True, "tokenizer_class": "LlamaTokenizerFast"}, [256, 39]),
        ({"add_bos_token": True, "tokenizer_class": "GemmaTokenizer"}, [256, 39]),
        ({"add_bos_token": False, "tokenizer_class": "LlamaTokenizerFast"}, [39]),
        ({"add_eos_token": True, "tokenizer_class": "LlamaTokenizer"}, [256, 39, 257]),
        ({"tokenizer_class": "LlamaTokenizer"}, [39]),
        ({"add_bos_token": True, "bos_token": None, "tokenizer_class": "LlamaTokenizer"}, [39]),
    ],
)
def test_what_starts_a_text_is_added_where_settings_say_so(tmp_path, settings, ids):
    tokenizer = beside(tmp_path, NAMED | settings)
    assert tokenizer.encode("H") == ids
    assert tokenizer.encode("H", add_special=False) == [39]


def test_special_tokens_may_be_split_like_any_text(tmp_path):
    assert beside(tmp_path).encode("<|bos|>") == [256]
    assert len(beside(tmp_path, {"split_special_tokens": True}).encode("<|bos|>")) == 7


# What a chat template may ask for; right values from transformers 5.2


GENERATION = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}{{ eos_token }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TALK = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yo"},
    {"role": "user", "content": "?"},
]


@pytest.mark.parametrize(
    ("template", "messages", "variables", "text"),
    [
        (GENERATION, TALK, {}, "<|user|>Hi<|assistant|>Yo<|im_end|><|user|>?<|assistant|>"),
        ("{% generation %}{% set x = 1 %}{% endgeneration %}{{ x }}", [], {}, ""),
        ("{{ messages | tojson }}", [{"role": "é<"}], {}, '[{"role": "é<"}]'),
        (
            "{{ messages | tojson(ensure_ascii=True) }}",
            [{"role": "é"}],
            {},
            '[{"role": "\\u00e9"}]',
        ),
        ("{{ messages | tojson(ensure_ascii=False) }}", [{"role": "é"}], {}, '[{"role": "é"}]'),
        ("{{ messages | tojson(indent=1) }}", [{"role": "a"}], {}, '[\n {\n  "role": "a"\n }\n]'),
        ("{{ messages | tojson(separators=(',', ':')) }}", [{"role": "a"}], {}, '[{"role":"a"}]'),
        (
            "{{ messages | tojson(sort_keys=True) }}",
            [{"role": "a", "content": "b"}],
            {},
            '[{"content": "b", "role": "a"}]',
        ),
        (
            "{% for m in messages %}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% else %}"
            "{{ m.content }}{% endif %}{% endfor %}",
            [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "tool_calls": [{"name": "f"}]},
            ],
            {},
            'Hi[{"name": "f"}]',
        ),
        ("{{ enable_thinking is defined }}", [], {}, "False"),
        ("{{ enable_thinking }}", [], {"enable_thinking": False}, "False"),
        ("{{ tools | length }}", [], {"tools": [{"name": "f"}]}, "1"),
        ("{{ tools is none }} {{ documents is none }}", [], {}, "True True"),
    ],
)
def test_a_template_finds_what_transformers_gives_it(copy, template, messages, variables, text):
    assert with_template(copy, template).apply_chat_template(messages, **variables) == text


def test_a_generator_of_messages_is_read_once(copy):
    assert TOY.apply_chat_template(message for message in HELLO) == TOY.apply_chat_template(HELLO)


@pytest.mark.parametrize("messages", [None, 5])
def test_messages_are_a_list(messages):
    with pytest.raises(TokenizerError, match="expected a list"):
        TOY.apply_chat_template(messages)


@pytest.mark.peers
@pytest.mark.parametrize(
    "source", [GENERATION, "{% generation %}{% set x = 1 %}{% endgeneration %}{{ x }}"]
)
def test_transformers_renders_these_templates_alike(copy, source):
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    ours = with_template(copy, source)
    theirs = utils._compile_jinja_template(source).render(
        messages=TALK, add_generation_prompt=True, **ours.special_tokens
    )
    assert ours.apply_chat_template(TALK) == theirs
