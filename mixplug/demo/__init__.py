"""Demos: the main tasks on real data that dependencies contain."""
