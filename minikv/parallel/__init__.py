"""One model on several processes or machines: every rank has the bits that one process has."""

from .build import build_rank, load_rank, split_model
from .comm import Comm
from .share import Share, even_shares, shares_of
from .sums import SplitSums, split_sums
from .threads import run_threads

__all__ = [
    "Comm",
    "Share",
    "SplitSums",
    "build_rank",
    "even_shares",
    "load_rank",
    "run_threads",
    "shares_of",
    "split_model",
    "split_sums",
]
