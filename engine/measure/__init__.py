"""Measuring a plan: its steps against the machine's ceilings, its throughput, and others on the same network."""
