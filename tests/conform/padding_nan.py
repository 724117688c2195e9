"""A fault of float64 that conform found in transformers: NaN on real rows behind left padding.

    python -m tests.conform.padding_nan

Eager attention fills the mask with the least float64 and takes the softmax in float32, where that
is minus infinity. A row of padding then sees nothing, so that its softmax is NaN; in the next layer
its values, though weighed by 0, make NaN of every row. Two layers, width 16, two tokens show it.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Print what happens; 1 if a real row is not finite."""
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=16,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).double().eval()
    padded = {
        "input_ids": torch.tensor([[0, 5]]),
        "attention_mask": torch.tensor([[0, 1]]),
    }
    positions = torch.tensor([[0, 0]])
    choose = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad():
        out = model(**padded, position_ids=positions, output_hidden_states=True)
        together = model.generate(**padded, **choose)[0, 2:].tolist()
        alone = model.generate(
            input_ids=torch.tensor([[5]]), attention_mask=torch.tensor([[1]]), **choose
        )[0, 1:].tolist()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, eager, float64")
    print("ids [0, 5], mask [0, 1]: finite streams before each layer and after the last")
    for layer, stream in enumerate(out.hidden_states):
        rows = [bool(torch.isfinite(stream[0, row]).all()) for row in (0, 1)]
        print(f"  {layer}: padding {rows[0]}, real {rows[1]}")
    finite = bool(torch.isfinite(out.logits[0, 1]).all())
    print(f"logits of the real row finite: {finite}")
    print(f"generate, padded: {together}; [5] alone: {alone}")
    return int(not finite)


if __name__ == "__main__":
    sys.exit(main())
