"""Bytes a token."""


def counted(config, itemsize):
    """K and V have as many heads as queries."""
    width = config.num_attention_heads * config.head_dim
    return {
        "full": 2 * config.num_hidden_layers * width * itemsize,
        "embedding": width * itemsize,
        "every": config.num_hidden_layers * width * itemsize,
    }


TABLE = {"gemma-3-4b": {"full": 139264, "embedding": 5120, "every": 174080}}
