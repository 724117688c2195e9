"""The theorems as code that can fail, the dataflow certificate, and what runs them."""

from .bits import Refuted, same_bits
from .cases import Case, random_case
from .run import CLAIMS
from .theorem import Theorem
from .theorems import THEOREMS

__all__ = ["CLAIMS", "THEOREMS", "Case", "Refuted", "Theorem", "random_case", "same_bits"]
