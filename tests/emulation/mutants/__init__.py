"""Kernels that exist to be broken: small ones with shared memory, barriers, bounds and a matrix product."""
