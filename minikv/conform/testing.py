"""One test an axis, for the test file of whoever wrote a decoder.

::

    # test_my_decoder.py
    from minikv.conform.testing import conform_tests
    from my_decoder import MyDecoder

    test_my_decoder = conform_tests(MyDecoder)

pytest then shows ``test_my_decoder[cached]``, ``test_my_decoder[fork]`` and so on. A bug fails with
the first bad position and the smallest case; what is undecided or cannot be tested is skipped, with
the reason.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from ..extras import require_extra
from .axes import AXES
from .bench import Bench, Settings
from .diagnosis import explained
from .run import chosen
from .verdict import Verdict, Word


def conform_tests(
    make: Callable[[], object], axes: Sequence[str] | None = None, **settings: object
) -> Callable[[str], None]:
    """A test function with one case for each axis.

    Parameters
    ----------
    make : callable
        Makes the adapter, once, when the first test runs: its class, or a function.
    axes : sequence of str, optional
        Names in `minikv.conform.axes.AXES`; all by default.
    **settings
        Of `minikv.conform.bench.Settings`.
    """
    pytest = require_extra("pytest", "test", "conform_tests")
    known = Settings(**settings)  # type: ignore[arg-type]  # checked by Settings
    wanted = [axis.name for axis in chosen(axes)]
    answered: dict[str, Verdict] = {}

    @functools.cache
    def bench() -> Bench:
        return Bench(make(), known)

    @pytest.mark.parametrize("axis", wanted)
    def test(axis: str) -> None:
        verdict = AXES[axis].ask(bench())
        answered[axis] = verdict
        if verdict.word is Word.BUG:
            [verdict] = explained(bench(), [verdict], answered.values())
            details = filter(None, verdict.details())
            pytest.fail("\n".join([AXES[axis].meaning, *details]), pytrace=False)
        if verdict.word in (Word.UNDECIDED, Word.NOT_TESTED):
            pytest.skip(f"{verdict.word}: {verdict.evidence}")

    return test
