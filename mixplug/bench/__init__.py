"""Speed as ratios measured within one process run; never a timed test."""
