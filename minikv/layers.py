"""One block's weights, and the hooks through which its activations pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .arithmetic import Arithmetic, Matrix
from .arrays import Array, Heads, Inputs, Outputs
from .config import ModelConfig
from .rotary import Rotary

Hook = Callable[[str, Array], Array]
"""``hook(name, value)`` looks at an activation, and returns it or what takes its place."""


def no_hook(name: str, value: Array) -> Array:
    """The hook that does nothing."""
    return value


def within(prefix: str, hook: Hook) -> Hook:
    """`hook` under longer names: ``attn.hook_q`` in here is ``blocks.3.attn.hook_q`` out there.

    `no_hook` stays what it is: whoever asks whether anybody looks compares with it.
    """
    if hook is no_hook:
        return no_hook
    return lambda name, value: hook(prefix + name, value)


@dataclass(frozen=True, eq=False, repr=False)
class Layer:
    """The weights of one block, under Hugging Face's names, and what is needed to use them.

    Matrices are as `Arithmetic.weight` prepared them. A bias or norm that the family does not have
    is None. Letters as in `minikv.config`; the methods take rows of any tokens.
    """

    index: int
    config: ModelConfig
    arithmetic: Arithmetic
    rotary: Rotary
    input_layernorm: Array  # (D,)
    q_proj: Matrix  # (H*d, D)
    k_proj: Matrix  # (G*d, D)
    v_proj: Matrix  # (G*d, D)
    o_proj: Matrix  # (D, H*d)
    pre_mlp_layernorm: Array  # (D,): what reads the stream for the MLP, whatever its file calls it
    gate_proj: Matrix  # (F, D)
    up_proj: Matrix  # (F, D)
    down_proj: Matrix  # (D, F)
    q_bias: Array | None = None  # (H*d,)
    k_bias: Array | None = None  # (G*d,)
    v_bias: Array | None = None  # (G*d,)
    q_norm: Array | None = None  # (d,)
    k_norm: Array | None = None  # (d,)
    post_attention_layernorm: Array | None = None  # (D,)
    post_feedforward_layernorm: Array | None = None  # (D,)

    @property
    def window(self) -> int | None:
        """How many positions, its own included, a token sees here; None for all."""
        return self.config.window(self.index)

    def norm(self, x: Array, weight: Array | None) -> Array:
        """RMSNorm by one of the layer's weights; x itself where the family has no such norm."""
        if weight is None:
            return x
        return self.arithmetic.rms_norm(x, weight, self.config.rms_norm_eps)

    def linear(self, x: Inputs, weight: Matrix) -> Outputs:
        """The product with one of the layer's matrices, ``(T, K) -> (T, N)``."""
        return self.arithmetic.linear(x, weight)

    def linears(self, x: Inputs, *weights: Matrix) -> tuple[Outputs, ...]:
        """The products of the same rows with some of the layer's matrices."""
        return self.arithmetic.linears(x, *weights)

    def heads(self, x: Outputs, bias: Array | None = None) -> Heads:
        """A product with its bias, cut into heads: ``(T, heads * d) -> (T, heads, d)``."""
        if bias is not None:
            x = x + bias
        return self.arithmetic.xp.reshape(x, (x.shape[0], -1, self.config.head_dim))

    def merged(self, x: Heads) -> Outputs:
        """Heads side by side again, ``(T, heads, d) -> (T, heads * d)``."""
        return self.arithmetic.xp.reshape(x, (x.shape[0], -1))

    def turned(self, x: Heads, positions: Array) -> Heads:
        """Each head turned by its position, ``(T, heads, d)``; see `Arithmetic.rope`."""
        cos, sin = self.rotary(positions)  # (T, 1, d)
        return self.arithmetic.rope(x, cos, sin)
