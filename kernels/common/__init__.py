"""What all kernels share: the Kernel entry, cases, comparison, the native library."""
