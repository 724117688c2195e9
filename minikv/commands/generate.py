"""``minikv generate``: continue a text, or answer one question."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from ..errors import InputError
from ..tokenizer import StreamDecoder
from .answering import add_answering, answer, load_speaker
from .output import print_json

SUMMARY = "continue a text"
DESCRIPTION = """\
Print PROMPT and its continuation as it comes, and a line of figures on
standard error. Without --chat the prompt is continued exactly as it is."""
EXAMPLES = """\
  minikv generate "The capital of France is" --max-new-tokens 20
  minikv generate --chat "Why is the sky blue?" --temperature 0.7 --seed 1
  minikv generate - --json < essay.txt"""


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
    speaker = load_speaker(args)
    if args.chat:  # the answer is a text of its own
        messages = [{"role": "user", "content": prompt}]
        text = speaker.tokenizer.apply_chat_template(messages, **dict(args.template))
        ids = speaker.tokenizer.encode(text, add_special=False)
        before: list[int] = []
        echo = ""
    else:  # the text goes on
        ids = speaker.tokenizer.encode(prompt)
        before = ids
        echo = prompt
    decoder = StreamDecoder(speaker.tokenizer, after=before)
    said = answer(speaker, ids, speaker.model.new_cache(), decoder, args.json, echo)
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
