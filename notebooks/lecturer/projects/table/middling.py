"""Bytes a token, from the formula."""

from minikv.shapes import shape


def counted(config, itemsize):
    """Bytes a token, by what is kept."""
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    every = config.num_hidden_layers * config.hidden_size
    return {
        "full": numbers * itemsize,
        "embedding": config.hidden_size * itemsize,
        "every": every * itemsize,
    }


TABLE = {name: counted(shape(name), 2) for name in ("gemma-3-4b", "smollm2-135m")}
