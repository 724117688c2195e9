"""``minikv generate``: continue a text, or answer one question."""

from __future__ import annotations

import functools
import json
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, replace
from pathlib import Path

from ..caches import Cache
from ..completion import Completion, complete
from ..errors import InputError
from ..parallel.comm import Comm
from ..progress import clear, status
from ..tokenizer import StreamDecoder
from .answering import Answer, Speaker, add_answering, answer, chosen_voice, load_speaker
from .caching import chosen_cache
from .drafting import Drafting, add_drafting, check_drafting, chosen_draft
from .output import print_json
from .ranks import add_ranks, chosen_ranks, say_wire, shared

SUMMARY = "continue a text"
DESCRIPTION = """\
Print PROMPT and its continuation as it comes, and a line of figures on
standard error. Without --chat the prompt is continued exactly as it is."""
EXAMPLES = """\
  minikv generate "The capital of France is" --max-new-tokens 20
  minikv generate --chat "Why is the sky blue?" --temperature 0.7 --seed 1
  minikv generate - --json < essay.txt
  minikv generate --prompts questions.txt --stop "?"
  minikv generate "Once upon a time" --cache residual --budget 16
  minikv generate "Once upon a time" --draft streaming_llm --budget 64
  minikv generate "Once upon a time" --arithmetic exact --ranks 4
  minikv generate "Once upon" --save-cache tale.cache
  minikv generate " In the end" --load-cache tale.cache"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "prompt", metavar="PROMPT", nargs="?", help="the text; - reads standard input"
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="continue many texts in one batch: one a line, or FILE.jsonl with a prompt each; "
        "prints a line of JSON for each (with --stream: as soon as it has ended)",
    )
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
    parser.add_argument("--system", metavar="TEXT", help="instructions for the model, with --chat")
    add_drafting(parser)
    add_ranks(parser)


def run(args: Namespace) -> int:
    """Continue the prompt, or all prompts of a file."""
    _check(args)
    with chosen_ranks(args) as comm:
        told = args
        if comm is None:
            told = Namespace(**vars(args) | _read(args))
        else:
            read = {} if comm.rank else _read(args)
            told = shared(args, comm, read)
        return continued(told, comm)


def _read(args: Namespace) -> dict[str, object]:
    """The texts that the options name files of."""
    if args.prompts:
        return {"texts": read_prompts(args.prompts)}
    if args.prompt == "-":
        return {"prompt": sys.stdin.read()}
    return {}


def continued(args: Namespace, comm: Comm | None) -> int:
    """Continue what was read, alone or as one of some ranks, of which the first prints."""
    speaker = load_speaker(args, comm)
    if args.prompts:
        _continue_all(args, speaker, comm)
        return 0
    first = comm is None or comm.rank == 0
    cache = chosen_cache(args, speaker.model)
    drafting = chosen_draft(args, speaker, comm)
    if drafting is not None:
        speaker = replace(speaker, source=drafting.tokens)
    if args.load_cache:
        speaker.load_cache(cache, args.load_cache)
    ids, before, echo = _given(speaker, cache, args)
    decoder = StreamDecoder(speaker.tokenizer, after=before)
    said = answer(speaker, ids, cache, decoder, chosen_voice(args, echo, first))
    if comm is not None:
        if said.interrupted:  # in the middle of a call, which the others wait in
            raise KeyboardInterrupt
        if first and not args.json:
            say_wire(comm)
    if args.save_cache:
        read_last(speaker, said, cache)
        speaker.save_cache(cache, args.save_cache)
    if first:
        _report(args, said, comm, drafting)
    if said.interrupted:
        return 130
    return 0


def _given(speaker: Speaker, cache: Cache, args: Namespace) -> tuple[list[int], list[int], str]:
    """What is fed, what the answer is spelt behind, and what is printed before it."""
    if args.chat:  # the answer is a text of its own
        return _asked(speaker, args.prompt, args), [], ""
    ids = speaker.tokenizer.encode(args.prompt, add_special=not cache.seen)  # the text goes on
    return ids, ids, args.prompt


def _report(args: Namespace, said: Answer, comm: Comm | None, drafting: Drafting | None) -> None:
    """The figures that ``--json`` prints, or else those of the draft, if there was one."""
    if args.json:
        drafted = {} if drafting is None else drafting.figures
        print_json(_figures(args, said, comm) | drafted, one_line=args.stream)
    elif drafting is not None:
        drafting.say()


def _figures(args: Namespace, said: Answer, comm: Comm | None) -> dict[str, object]:
    """What ``--json`` prints."""
    figures: dict[str, object] = {
        "model": args.model,
        "arithmetic": args.arithmetic,
        "chat": args.chat,
        "prompt": args.prompt,
        "text": said.text,
        "ids": said.ids,
        **said.figures,
    }
    if comm is not None:
        figures |= {"ranks": comm.size, "calls": comm.calls, "wire_bytes": comm.wire}
    return figures


def _check(args: Namespace) -> None:
    """Refuse what contradicts itself, before a model is loaded."""
    if (args.prompt is None) == (args.prompts is None):
        raise InputError("give either a PROMPT, or --prompts FILE")
    if args.template and not args.chat:
        raise InputError("--template sets variables of the chat template: it goes with --chat")
    if args.system and not args.chat:
        raise InputError("--system is a message of the chat template: it goes with --chat")
    if args.load_cache and args.chat:
        raise InputError("--load-cache goes on with a text, and --chat begins one: give one")
    check_drafting(args)
    if args.prompts and (args.chat or args.load_cache or args.save_cache):
        raise InputError("--prompts takes neither --chat nor --load-cache nor --save-cache")


def _asked(speaker: Speaker, question: str, args: Namespace) -> list[int]:
    """A question in the chat template."""
    messages = [{"role": "user", "content": question}]
    if args.system:
        messages.insert(0, {"role": "system", "content": args.system})
    text = speaker.tokenizer.apply_chat_template(messages, **dict(args.template))
    return speaker.tokenizer.encode(text, add_special=False)


def _continue_all(args: Namespace, speaker: Speaker, comm: Comm | None) -> None:
    """Continue the prompts of a file in one ragged batch; a line of JSON for each."""
    new_cache = functools.partial(chosen_cache, args, speaker.model)
    quiet = comm is not None and comm.rank > 0

    def tell(number: int, completion: Completion) -> None:
        told = {"prompt": args.texts[number], **asdict(completion), "number": number + 1}
        told["top"] = [speaker.spelled(top) for top in completion.top]
        if not quiet:
            clear()
            print_json(told, one_line=True)

    with status(f"continuing {len(args.texts)} texts") as progress:
        found = complete(
            speaker.model.weights,
            speaker.tokenizer,
            args.texts,
            speaker.max_new_tokens,
            new_cache,
            stop=speaker.stop_strings,
            top_log_probs=speaker.logprobs or 0,
            progress=progress,
            ended=tell if args.stream else None,
            **speaker.drawing,
        )
    if not args.stream:
        for number, completion in enumerate(found):
            tell(number, completion)


def read_prompts(path: str) -> list[str]:
    """The texts of a file: one a line, or JSON lines with a ``prompt`` each.

    Raises
    ------
    InputError
        If there is none, or a line of JSON has no ``prompt``.
    """
    text = Path(path).read_text(encoding="utf-8", errors="strict")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"--prompts {path}: no line in it holds a text")
    if not path.endswith(".jsonl"):
        return lines
    prompts = []
    for number, line in enumerate(lines, start=1):
        try:
            prompts.append(json.loads(line)["prompt"])
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f'--prompts {path}, line {number}: expected {{"prompt": "TEXT"}}'
            ) from None
    return prompts


def read_last(speaker: Speaker, said: Answer, cache: Cache) -> None:
    """Let the cache see the last token too, which nothing was asked after; not one that ends."""
    if said.ids and not said.ended:
        speaker.model.forward([[said.ids[-1]]], [cache], "none")
