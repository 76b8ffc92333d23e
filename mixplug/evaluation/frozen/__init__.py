"""Evaluations of frozen vision transformers: k-NN, linear probe, discovery, DAVIS."""
