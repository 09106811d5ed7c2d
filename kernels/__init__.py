"""Kernels usable alone, on arrays: one folder per op."""
