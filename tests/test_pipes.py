"""A named pipe that is given in place of a file."""

from __future__ import annotations

import os

import pytest

import minikv
from minikv.errors import CacheError, ConfigError

EXACT = minikv.random_model(minikv.tiny_config(), seed=1, arithmetic="exact")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes that have names")
def test_a_pipe_is_neither_replaced_nor_waited_for(tmp_path):
    pipe = tmp_path / "config.json"
    os.mkfifo(pipe)
    cache = EXACT.new_cache()
    with pytest.raises(CacheError, match="no plain file"):
        cache.save(pipe)
    with pytest.raises(CacheError, match="there is no such file"):
        cache.load(pipe)
    with pytest.raises(ConfigError, match="no plain file"):
        minikv.ModelConfig.from_file(pipe)
    assert pipe.is_fifo()
