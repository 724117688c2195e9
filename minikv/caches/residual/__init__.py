"""KV-Direct: recent tokens keep K and V, older ones keep residual checkpoints.

Qasim et al. 2026, arXiv 2603.19664. `ring` holds the newest K and V, `checkpoints` the residuals,
`replay` makes K and V of evicted tokens from them, and `policy` says which when.
"""

from .checkpoints import checkpoint_layers as checkpoint_layers
from .policy import Residual as Residual
