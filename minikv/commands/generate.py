"""``minikv generate``: continue a text, or answer one question."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from ..caches import Cache
from ..errors import InputError
from ..tokenizer import StreamDecoder
from .answering import Answer, Speaker, add_answering, answer, load_speaker
from .caching import chosen_cache
from .output import print_json

SUMMARY = "continue a text"
DESCRIPTION = """\
Print PROMPT and its continuation as it comes, and a line of figures on
standard error. Without --chat the prompt is continued exactly as it is."""
EXAMPLES = """\
  minikv generate "The capital of France is" --max-new-tokens 20
  minikv generate --chat "Why is the sky blue?" --temperature 0.7 --seed 1
  minikv generate - --json < essay.txt
  minikv generate "Once upon a time" --cache residual --budget 16
  minikv generate "Once upon" --save-cache tale.cache
  minikv generate " In the end" --load-cache tale.cache"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("prompt", metavar="PROMPT", help="the text; - reads standard input")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--raw",
        dest="chat",
        action="store_false",
        default=False,
        help="continue the prompt as it is (default)",
    )
    mode.add_argument(
        "--chat",
        action="store_true",
        help="answer the prompt, in the model's chat template (extra `chat`), and print the answer "
        "alone",
    )
    add_answering(parser)


def run(args: Namespace) -> int:
    """Continue the prompt."""
    prompt = args.prompt
    if prompt == "-":
        prompt = sys.stdin.read()
    if args.template and not args.chat:
        raise InputError("--template sets variables of the chat template: it goes with --chat")
    if args.load_cache and args.chat:
        raise InputError("--load-cache goes on with a text, and --chat begins one: give one")
    speaker = load_speaker(args)
    cache = chosen_cache(args, speaker.model)
    if args.load_cache:
        cache.load(args.load_cache)
    if args.chat:  # the answer is a text of its own
        messages = [{"role": "user", "content": prompt}]
        text = speaker.tokenizer.apply_chat_template(messages, **dict(args.template))
        ids = speaker.tokenizer.encode(text, add_special=False)
        before: list[int] = []
        echo = ""
    else:  # the text goes on
        ids = speaker.tokenizer.encode(prompt, add_special=not cache.seen)
        before = ids
        echo = prompt
    decoder = StreamDecoder(speaker.tokenizer, after=before)
    said = answer(speaker, ids, cache, decoder, args.json, echo)
    if args.save_cache:
        read_last(speaker, said, cache)
        cache.save(args.save_cache)
    if args.json:
        print_json(
            {
                "model": args.model,
                "arithmetic": args.arithmetic,
                "chat": args.chat,
                "prompt": prompt,
                "text": speaker.tokenizer.decode(said.ids, after=before),
                "ids": said.ids,
                **said.figures,
            }
        )
    if said.interrupted:
        return 130
    return 0


def read_last(speaker: Speaker, said: Answer, cache: Cache) -> None:
    """Let the cache see the last token too, which nothing was asked after; not one that ends."""
    if said.ids and not said.ended:
        speaker.model.forward([[said.ids[-1]]], [cache], "none")
