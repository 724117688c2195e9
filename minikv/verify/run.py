"""What ``minikv prove`` runs, outside pytest: a claim on cases, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from .cases import Case
from .certificate import CERTIFICATE
from .theorem import Theorem
from .theorems import THEOREMS

Subject = TypeVar("Subject")
CLAIMS: dict[str, Theorem[Case]] = THEOREMS | {CERTIFICATE.id: CERTIFICATE}
"""The theorems, and the dataflow certificate, by id."""


@dataclass(frozen=True)
class Result:
    """What became of one claim.

    Parameters
    ----------
    id, name : str
    verdict : str
        ``holds``, ``FAILS``, or ``VACUOUS`` where the control found no difference.
    examples : int
        Cases on which it was checked.
    seconds : float
        Of checks and control together.
    failure : str
        Why it does not hold, and Python that reproduces it; empty where it does.
    control : str
        What dropping the hypothesis changed; empty where no difference was found.
    """

    id: str
    name: str
    verdict: str
    examples: int
    seconds: float
    failure: str
    control: str


def prove(claim: Theorem[Subject], cases: Iterable[Subject], controls: Iterable[Subject]) -> Result:
    """Check a claim on each case, then look for a case in which its control finds a difference."""
    began = time.perf_counter()
    examples = 0
    failure = ""
    control = ""
    case = None
    try:
        for case in cases:
            examples += 1
            claim.check(case)
        for case in controls:
            found = claim.control(case)
            if found:
                control = f"without {claim.dropped}: {found}"
                break
    except Exception as error:  # a fault in the decoder may show as any error
        failure = f"{type(error).__name__}: {error}\n{_reproduced(claim, case)}"
    seconds = time.perf_counter() - began
    verdict = "holds" if control else "VACUOUS"
    if failure:
        verdict = "FAILS"
    return Result(claim.id, claim.name, verdict, examples, seconds, failure, control)


def _reproduced(claim: Theorem[Subject], case: Subject | None) -> str:
    """Python that runs the check and the control on a case again."""
    return (
        "from minikv.config import ModelConfig, RopeScaling\n"
        f"from minikv.verify import CLAIMS, {type(case).__name__}\n"
        f"case = {case!r}\n"
        f"CLAIMS[{claim.id!r}].check(case), CLAIMS[{claim.id!r}].control(case)"
    )


def conclusion(results: Sequence[Result], on: str) -> str:
    """What the results establish, and what they do not."""
    verdicts = dict.fromkeys(CLAIMS, "not run") | {result.id: result.verdict for result in results}
    notes = _notes(results)
    held = [f"{id}{notes[id]}" for id, verdict in verdicts.items() if verdict == "holds"]
    rest = [f"{id} ({verdict})" for id, verdict in verdicts.items() if verdict != "holds"]
    rest += ["other weights and texts (for arbitrary ones: proofs/rocq)", "other architectures"]
    found = "nothing"
    if held:
        found = f"{', '.join(held)}, each bit for bit unless said"
    return f"Established on {on}: {found}. Not established: {', '.join(rest)}, float32."


def _notes(results: Sequence[Result]) -> dict[str, str]:
    """What a claim's check runs, and on how many cases, where these are fewer; in brackets."""
    most = max((result.examples for result in results), default=0)
    notes = {}
    for result in results:
        said = [CLAIMS[result.id].scope]
        if result.examples < most:
            said.append(f"on {result.examples}")
        text = ", ".join(part for part in said if part)
        notes[result.id] = f" ({text})" if text else ""
    return notes
