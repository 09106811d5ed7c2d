"""GPU kernels as data: programs of launches, the compilers that make cubins of them, and the device that runs them."""
