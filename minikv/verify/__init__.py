"""The eleven theorems as code that can fail, the dataflow certificate, and the report."""

from .theorems import THEOREMS, Case, Refuted, Theorem

__all__ = ["THEOREMS", "Case", "Refuted", "Theorem"]
