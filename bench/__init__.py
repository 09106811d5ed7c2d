"""Benchmarks: kernels and networks against named peers, measured in one run."""
