"""The paper's experiments, each a function that returns rows (dicts) for a table and a plot.

``compare`` (agreement with the full cache), ``memory`` (a conversation of 20 turns), ``frontier``
(bytes against recompute time) and ``latency`` (reading against recomputing). They share texts,
policies by name, one pass that fills many caches, and timing.
"""

from .policies import policy_cache
from .texts import read_conversation, read_passages, read_prompts
from .timing import machine, samples, seconds
from .together import Together, fill

__all__ = [
    "Together",
    "fill",
    "machine",
    "policy_cache",
    "read_conversation",
    "read_passages",
    "read_prompts",
    "samples",
    "seconds",
]
