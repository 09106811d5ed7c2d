"""Trained models in: formats, recipes and small architectures for tests."""
