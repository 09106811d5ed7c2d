"""From a graph to something that runs: partition, schedule, memory, parity, the plan file."""
