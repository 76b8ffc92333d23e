"""Metric losses: the eight of Table 4.1, Metrix around them, and what it is compared with."""
