"""Benchmarks: each figure stands beside the limit that was measured in the same call."""
