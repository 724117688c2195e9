"""Put any decoder to the test, and tell rounding from a bug.

::

    minikv conform my_model.py:Adapter

`conform` runs a target through the axes of `minikv.conform.axes`; `minikv.conform.adapter` says
what a target must have, `minikv.conform.rule` how differences are judged. Right here is the rule
and how it is run; in ``axes`` what is asked, in ``diagnosis`` and ``kinds`` what is told of a bug,
in ``report`` in which form, in ``targets`` of whom. Each part has a limit to its size
(``tests/conform/test_limits.py``).
"""

from .outcome import Report
from .run import conform
from .verdict import Case, Kind, Verdict, Word

__all__ = ["Case", "Kind", "Report", "Verdict", "Word", "conform"]
