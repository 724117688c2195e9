"""A conversation reads each turn once, and forgets a question that does not fit."""

from __future__ import annotations

import json
import shutil

import pytest

import minikv
from minikv.conversation import ContextFull, Conversation
from minikv.errors import TokenizerError


@pytest.fixture(scope="module")
def model(tiny):
    return minikv.load(tiny, "exact")


def say(conversation: Conversation, question: str, tokens: int = 4) -> tuple[list[int], list[int]]:
    """Ids that were read, and those of the answer."""
    unread = conversation.ask(question)
    reply = list(conversation.model.generate(unread, tokens, conversation.cache, stop=()))
    conversation.answer(reply)
    return unread, reply


def test_each_turn_is_read_once_and_nothing_else(model):
    conversation = Conversation(model, "Be brief.")
    read: list[int] = []
    for question in ("Hello", "and then?", "why?"):
        unread, reply = say(conversation, question)
        assert reply == list(model.generate(conversation.ids[:-4], 4, stop=()))
        read += unread + reply[:-1]
        assert read == conversation.ids[:-1]
        assert conversation.cache.seen == len(read)
    assert conversation.restarts == 0


def test_a_question_that_does_not_fit_is_forgotten(model):
    conversation, other = Conversation(model), Conversation(model)
    say(conversation, "Hello")
    say(other, "Hello")
    with pytest.raises(ContextFull, match="the context is 256"):
        conversation.ask("word " * 400)
    assert say(conversation, "again") == say(other, "again")


def test_a_stop_token_ends_the_text_and_is_no_part_of_the_message(model):
    conversation = Conversation(model)
    conversation.ask("Hello")
    stop = model.tokenizer.encode("<|im_end|>", add_special=False)
    word = model.tokenizer.encode("a", add_special=False)
    assert conversation.answer([*word, *stop], ended=True) == "a"
    before = len(conversation.ids)
    conversation.ask("Hello")
    assert model.tokenizer.decode(conversation.ids[before:], skip_special=False).startswith("\n")
    assert conversation.restarts == 0


def test_a_template_that_rewrites_earlier_turns_is_read_from_the_start(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "model")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{{ messages[-1]['content'] }}<|im_end|>"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    model = minikv.load(folder)
    conversation = Conversation(model)
    say(conversation, "Hello")
    unread, _ = say(conversation, "Good day")
    assert unread == model.tokenizer.encode("Good day<|im_end|>", add_special=False)
    assert conversation.restarts == 1


def test_a_model_without_a_tokenizer_is_refused():
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        Conversation(minikv.random_model(minikv.tiny_config(), seed=0))
