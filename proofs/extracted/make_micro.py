"""Write ``proofs/rocq/Micro.v``: a model so small that Coq's kernel runs it, and Python's logits.

::

    python proofs/extracted/make_micro.py          # rewrites the file
    python proofs/extracted/make_micro.py --check  # exit code 1 if it is stale

Every number is an exact hexadecimal literal. Of the table of ``exp`` the file holds the entries
that this text asks for; the others are nan, so that asking for one would show.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from decoder_dump import rope_frequencies

from minikv import Model, ModelConfig, build, random_tensors, tiny_config
from minikv.arithmetic import elementary

MICRO = Path(__file__).resolve().parents[1] / "rocq" / "Micro.v"
IDS = (3, 1, 4, 1, 5)
SIZES = {
    "vocab_size": 7,
    "hidden_size": 6,
    "intermediate_size": 5,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
}
NAMES = {
    "input_layernorm": "input_layernorm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "o_proj": "self_attn.o_proj",
    "pre_mlp_layernorm": "post_attention_layernorm",
    "gate_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "down_proj": "mlp.down_proj",
}
LACKING = (
    "q_bias",
    "k_bias",
    "v_bias",
    "q_norm",
    "k_norm",
    "post_attention_layernorm",
    "post_feedforward_layernorm",
)
HEAD = """\
(* Micro.v -- Coq's own kernel runs the decoder, and finds the bits that the Python computes; so
   then does any machine, in whatever order it adds.  Made by proofs/extracted/make_micro.py: a
   Llama of 2 layers, 5 tokens, and what they ask for of the table of exp, nan elsewhere. *)
From Coq Require Import Reals Lra ZArith Floats List.
From Flocq Require Import Core BinarySingleNaN.
From Minikv Require Import Exactness Grids Binary64 Values Machine Linear Attend Machines.
From Minikv Require Import Markov Decoder.
Import ListNotations.
#[local] Open Scope float_scope.

Definition sparse {A} (size : nat) (other : A) (entries : list (nat * A)) : list A :=
  map (fun i => match find (fun e => Nat.eqb (fst e) i) entries with
    Some e => snd e | None => other end) (seq 0 size).
"""
TAIL = """\
Example logits_are_pythons : logits loops micro ids = expected.
Proof. now vm_compute. Qed.
Example cached_logits_are_pythons :
  fst (decode_cached loops micro [[3; 1]; [4]; [1; 5]]%nat) = expected.
Proof. now vm_compute. Qed.

Theorem any_machine_gives_pythons_bits M : orderly M -> logits M micro ids = expected.
Proof.
  intros O. rewrite logits_same; [exact logits_are_pythons | exact O |]. apply build_loaded.
  - split; [apply fin_lit; now vm_compute|]. split.
    { assert (E : (V eps > 0)%R); [|change (rms_norm_eps conf) with eps; lra].
      rewrite V_lit. let y := eval vm_compute in (Prim2SF eps) in change (Prim2SF eps) with y.
      unfold SF2R, F2R, Fnum, Fexp, cond_Zopp. simpl. lra. }
    split; [apply fin_lit; now vm_compute|]. split; [apply fin_lit; now vm_compute|].
    exists 40%Z. split; [easy|].
    change (pattern_grid conf) with 0x1p-40. change (context conf) with 128. split.
    { value. simpl. lra. }
    assert (E : V 128 = 128%R) by (value; simpl; lra). rewrite E. simpl. lra.
  - repeat constructor.
  - repeat constructor.
Qed.

Print Assumptions logits_are_pythons.
Print Assumptions cached_logits_are_pythons.
Print Assumptions any_machine_gives_pythons_bits.
"""


def number(value: float) -> str:
    """A literal, exact."""
    if np.isnan(value):
        return "nan"
    return f"({float(value).hex()})"


def numbers(values: Iterable[float]) -> str:
    return f"[{'; '.join(map(number, values))}]"


def rows(values: Iterable[Iterable[float]]) -> str:
    return f"[{'; '.join(map(numbers, values))}]"


def definition(name: str, kind: str, value: str) -> str:
    """A Definition, its lines filled to 100 columns."""
    filled = textwrap.fill(
        value,
        98,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"Definition {name} : {kind} :=\n{filled}.\n"


def asked(model: Model) -> dict[int, set[int]]:
    """Rows and columns of the table of exp, 256 a row, that the text asks for."""
    found: dict[int, set[int]] = {}
    original = elementary.exp

    def spy(x: np.ndarray, *others: object) -> np.ndarray:
        steps = np.clip(np.asarray(x) * 256.0, -190976.0, 181704.448)
        for index in np.unique(np.rint(steps)).astype(int) + 190976:
            found.setdefault(int(index) // 256, set()).add(int(index) % 256)
        return original(x, *others)

    with mock.patch.object(elementary, "exp", spy):
        model.logits(IDS)
    return found


def table(model: Model) -> str:
    """The table of exp, sparse."""
    entries = elementary.exp_table()
    size = -(-entries.size // 256)
    kept = []
    for row, columns in sorted(asked(model).items()):
        pairs = "; ".join(f"({j}%nat, {number(entries[256 * row + j])})" for j in sorted(columns))
        kept.append(f"({row}%nat, sparse 256 nan [{pairs}])")
    return f"sparse {size} [] [{'; '.join(kept)}]"


def block(config: ModelConfig, tensors: dict[str, np.ndarray], layer: int) -> str:
    """The fields of a block."""
    fields = ["window := None", f"frequencies := {numbers(rope_frequencies(config))}"]
    for ours, theirs in NAMES.items():
        tensor = tensors[f"model.layers.{layer}.{theirs}.weight"]
        fields.append(f"{ours} := {numbers(tensor) if tensor.ndim == 1 else rows(tensor)}")
    fields += [f"{name} := None" for name in LACKING]
    return "{| " + "; ".join(fields) + " |}"


def text() -> str:
    """The file as it should be."""
    config = tiny_config(**SIZES)
    tensors = random_tensors(config, 0)
    model = Model(build(config, tensors, "exact"))
    grid = number(2.0**-model.arithmetic.denominator_bits)
    conf = (
        "{| groups := 1; shared := 2; head_dim := 4; rms_norm_eps := eps; "
        "query_pre_attn_scalar := 4; hidden_act := silu; norm_offset := 0; "
        f"embedding_scale := None; context := {config.max_position_embeddings}; "
        f"pattern_grid := {grid}; exp_table := table |}}"
    )
    parts = [
        HEAD,
        definition("table", "matrix", table(model)),
        definition("eps", "float", number(config.rms_norm_eps)),
        definition("conf", "config", conf),
        *(definition(f"block{layer}", "block", block(config, tensors, layer)) for layer in (0, 1)),
        definition("embedding", "matrix", rows(tensors["model.embed_tokens.weight"])),
        definition("last_norm", "row", numbers(tensors["model.norm.weight"])),
        definition("micro", "model", "build conf embedding [block0; block1] last_norm embedding"),
        definition("ids", "list nat", f"[{'; '.join(map(str, IDS))}]%nat"),
        definition("expected", "list row", rows(model.logits(IDS))),
        TAIL,
    ]
    return "\n".join(parts)


def main(arguments: Sequence[str]) -> None:
    made = text()
    if "--check" in arguments:
        stale = MICRO.read_text(encoding="utf-8") != made
        sys.exit(f"{MICRO.name} is stale: run make_micro.py" if stale else 0)
    MICRO.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
