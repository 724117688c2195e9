"""The theorems as code that can fail, the dataflow certificate, and what runs them."""

from .cases import Case, Refuted, random_case
from .run import CLAIMS
from .theorem import Theorem
from .theorems import THEOREMS

__all__ = ["CLAIMS", "THEOREMS", "Case", "Refuted", "Theorem", "random_case"]
