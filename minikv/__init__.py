"""minikv: a NumPy transformer whose KV cache is redundant, bit for bit.

>>> import minikv
>>> model = minikv.random_model(minikv.tiny_config(), seed=0)
>>> len(list(model.generate([1, 2, 3], max_new_tokens=4)))
4
"""

from .build import build, random_tensors
from .config import ModelConfig, RopeScaling
from .decoder import forward
from .errors import MinikvError
from .model import Model, load, random_model, tiny_config
from .patching import kl_divergence
from .projection import kv_from_residual

__version__ = "0.1.0"
__all__ = [
    "MinikvError",
    "Model",
    "ModelConfig",
    "RopeScaling",
    "build",
    "forward",
    "kl_divergence",
    "kv_from_residual",
    "load",
    "random_model",
    "random_tensors",
    "tiny_config",
]
