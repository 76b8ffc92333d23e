"""Demos: the main jobs on real data that ship with a dependency."""
