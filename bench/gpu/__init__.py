"""What only a GPU can show: speed of networks, studies and kernels there, beside what else runs on it."""
