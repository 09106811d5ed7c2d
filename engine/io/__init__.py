"""Readers and writers of images: a path in, a Volume out, and back."""
