"""Data sets, samplers and transforms for mmengine."""
