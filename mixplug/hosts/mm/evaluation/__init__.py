"""Evaluators for mmengine."""
