"""Optimizers for torch that take the solved update."""
