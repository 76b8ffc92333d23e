"""Evaluations of frozen features; each is a job that commands and configs call."""
