"""Put any decoder to the test, and tell rounding from a bug.

::

    minikv conform my_model.py:Adapter

`conform` runs a target through the axes of `minikv.conform.axes`; `minikv.conform.adapter` says
what a target must have, `minikv.conform.rule` how differences are judged.
"""

from .outcome import Report
from .run import conform
from .verdict import Case, Kind, Verdict, Word

__all__ = ["Case", "Kind", "Report", "Verdict", "Word", "conform"]
