"""Numbers that pages tell of the code are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from minikv import verify
from minikv.arithmetic import Exact
from minikv.arithmetic.base import Arithmetic
from minikv.atlas import theorems
from minikv.caches import POLICIES, Evicting
from minikv.conform.axes import AXES
from minikv.experiments.score import read_questions
from minikv.parallel.sockets import PROBE_SECONDS
from minikv.shapes import shape

ROOT = Path(__file__).parents[1]
WORDS = {3: "three", 5: "five", 6: "six", 7: "seven", 10: "ten"}
PROVED = len(verify.THEOREMS)
OF_SYSTEMS = len(theorems.THEOREMS)
QUESTIONS = len(read_questions(ROOT / "minikv" / "data" / "endings.jsonl"))
MILLIONS = round(shape("smollm2-135m").num_parameters / 1e6)
HOWTO = (ROOT / "docs" / "howto.md").read_text(encoding="utf-8")
POLICY = HOWTO.partition("@minikv.caches.register")[2].partition(">>> model")[0]
LINES = sum(bool(line.strip("> .")) for line in ["@", *POLICY.splitlines()[1:]])
EVICTING = sum(issubclass(policy, Evicting) for policy in POLICIES.values())
OF_A_FUNCTION = sum(not axis.needs for axis in AXES.values())
TOLD = [
    ("docs/faq.md", f"{WORDS[LINES].capitalize()} lines, outside the package"),
    ("proofs/README.md", f"There are {PROVED}, T1 to T{PROVED};"),
    ("proofs/README.md", f"{WORDS[OF_SYSTEMS].capitalize()} more theorems, A1 to A{OF_SYSTEMS},"),
    ("docs/howto.md", f"it scores {WORDS[QUESTIONS]} questions of our own"),
    ("docs/faq.md", f"The model that is fetched first has {MILLIONS} million parameters"),
    ("docs/parallel.md", f"after {WORDS[PROBE_SECONDS]} seconds without an answer"),
    ("proofs/README.md", f"each of {WORDS[EVICTING]} eviction policies"),
    ("docs/backends.md", f"of a weight matrix to a grid, {Exact.weight_bits} bits"),
    ("docs/conform.md", f"is enough for {WORDS[OF_A_FUNCTION]} axes"),
    ("docs/backends.md", f"once a layer and {Arithmetic.query_block} queries"),
]


@pytest.mark.parametrize(("page", "told"), TOLD)
def test_a_number_on_a_page_is_that_of_the_code(page, told):
    assert told in " ".join((ROOT / page).read_text(encoding="utf-8").split())
