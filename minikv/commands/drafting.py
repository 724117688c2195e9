"""A lossy cache as the draft of an exact verifier: options and figures of ``generate --draft``."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..caches import Cache
from ..errors import InputError
from ..experiments.policies import policy_cache
from ..generation import sampler
from ..parallel.comm import Comm
from .answering import Speaker
from .options import count

if TYPE_CHECKING:
    from ..atlas.speculation import CacheDraft, Speculator

AHEAD = 6  # tokens guessed a round


def add_drafting(parser: ArgumentParser) -> None:
    """Add ``--draft`` and ``--ahead``."""
    group = parser.add_argument_group("a draft")
    group.add_argument(
        "--draft",
        metavar="POLICY",
        help="guess with this cache, which may lose what it likes, and verify with --cache: the "
        "tokens are those of --cache alone, under --arithmetic exact the logits too; --budget is "
        "then the draft's",
    )
    group.add_argument(
        "--ahead", type=count, metavar="K", help=f"tokens guessed a round (default: {AHEAD})"
    )


def check_drafting(args: Namespace) -> None:
    """Refuse what does not go with a draft, before a model is loaded."""
    if args.draft is None:
        if args.ahead is not None:
            raise InputError(f"--ahead {args.ahead}: how far a draft goes; give --draft POLICY")
        return
    if args.prompts or args.load_cache:
        raise InputError("--draft takes one PROMPT, and neither --prompts nor --load-cache")
    if args.budget is not None and "@" in args.draft:
        raise InputError(f"--draft {args.draft} and --budget {args.budget}: give one budget")
    if args.logprobs is not None or args.stream:
        raise InputError(
            "--draft verifies several tokens at once: leave --logprobs and --stream out"
        )
    if args.ranks != 1 or args.listen:
        raise InputError("--draft runs on one rank: leave --ranks and --listen out")


def chosen_draft(args: Namespace, speaker: Speaker, comm: Comm | None) -> Drafting | None:
    """The draft that the options name, if they name one."""
    if args.draft is None:
        return None
    if comm is not None:
        raise InputError("--draft runs on one rank, and mpirun or torchrun started several")
    return Drafting(args, speaker)


class Drafting:
    """Continues texts with drafts, as `Speaker.source`, and remembers how that went.

    Parameters
    ----------
    args : Namespace
    speaker : Speaker
    """

    def __init__(self, args: Namespace, speaker: Speaker) -> None:
        self._speaker = speaker
        _, _, own = args.draft.partition("@")
        self._policy = args.draft
        self._budget = 128 if args.budget is None else args.budget
        if own.isdecimal():
            self._budget = int(own)
        self._ahead = args.ahead or AHEAD
        self._run: tuple[Speculator, CacheDraft] | None = None

    def tokens(self, ids: Sequence[int], max_new_tokens: int, cache: Cache) -> Iterator[int]:
        """New tokens, verified by `cache`."""
        from ..atlas.speculation import CacheDraft, Speculator

        weights = self._speaker.model.weights
        draft = CacheDraft(weights, policy_cache(self._policy, weights, self._budget), self._ahead)
        choose = sampler(**self._speaker.drawing)
        speculator = Speculator(weights, cache, draft, choose, self._speaker.stop)
        self._run = speculator, draft
        return speculator.tokens(ids, max_new_tokens)

    @property
    def figures(self) -> dict[str, object]:
        """What ``--json`` prints of it."""
        assert self._run is not None
        speculator, draft = self._run
        return {
            "draft": self._policy,
            "draft_budget": self._budget,
            "ahead": self._ahead,
            "drafted": speculator.figures.drafted,
            "accepted": speculator.figures.accepted,
            "verifier_calls": speculator.figures.calls,
            "verifier_calls_saved": speculator.figures.saved,
            "draft_calls": draft.calls,
        }

    def say(self) -> None:
        """One line of figures on standard error."""
        told = self.figures
        print(
            f"[draft {told['draft']}: {told['accepted']} of {told['drafted']} guesses accepted; "
            f"{told['verifier_calls']} calls of the verifier after the prompt, "
            f"{told['verifier_calls_saved']} fewer than one by one; "
            f"{told['draft_calls']} calls of the draft]",
            file=sys.stderr,
        )
