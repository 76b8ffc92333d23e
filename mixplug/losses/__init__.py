"""Metric losses: the eight of Table 4.1, Metrix, and the methods that Metrix is compared with.

Equation, table and section numbers are those of the thesis that ``mixplug.__doc__`` names.
"""
