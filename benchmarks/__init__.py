"""Timings against peers; run as ``python -m benchmarks.peers``."""
