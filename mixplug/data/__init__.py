"""Data sets of the demos and quick configs."""
