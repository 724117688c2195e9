"""One system of the atlas a file. Each has an ``ENTRY``, which a registry finds by being there."""
