"""From the network's output to a result on the source's frame."""
