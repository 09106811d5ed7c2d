"""From a study to the network's input."""
