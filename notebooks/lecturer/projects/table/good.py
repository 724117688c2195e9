"""What a token costs: K and V, one residual, and a residual at every layer.

Counted from the shape, and measured as the slope of `nbytes` between two lengths of a text, with a
budget of one token for the caches of residuals. Not counted: what is allocated beyond what is held,
the peak while a step runs, windows, behind which a full cache holds less, and time.
"""

from minikv.shapes import shape


def counted(config, itemsize):
    """Bytes a token, by what is kept."""
    layers = config.num_hidden_layers
    row = config.hidden_size * itemsize
    pair = 2 * config.num_key_value_heads * config.head_dim * itemsize
    return {"full": layers * pair, "embedding": row, "every": layers * row}


def slope(model, policy, **settings):
    """Bytes that a cache grows by with each token."""
    held = []
    for tokens in (4, 12):
        cache = model.new_cache(policy, **settings)
        model.forward([list(range(tokens))], [cache], "none")
        held.append(cache.nbytes)
    return (held[1] - held[0]) // 8


def measured(model):
    """The same as `counted`, of caches that hold something."""
    return {
        "full": slope(model, "full"),
        "embedding": slope(model, "residual", budget=1, checkpoints="embedding"),
        "every": slope(model, "residual", budget=1, checkpoints="every"),
    }


def wrong(config, itemsize):
    """K and V of every query head, as before heads were shared."""
    pair = 2 * config.num_attention_heads * config.head_dim * itemsize
    return counted(config, itemsize) | {"full": config.num_hidden_layers * pair}


NAMES = ("gemma-3-4b", "llama-3.2-1b", "smollm-1.7b", "smollm2-135m")
TABLE = {name: counted(shape(name), 2) for name in NAMES}
