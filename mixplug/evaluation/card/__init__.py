"""Reliability cards of classifiers: accuracy, robustness, calibration, out-of-distribution scores.

Passes run a network on a data set and keep what the numbers need (:mod:`.passes`). Parts compute
the numbers of :mod:`mixplug.numbers` from them (:mod:`.parts`). :mod:`.job` runs what is not in the
cache yet, and :mod:`.report` writes JSON, Markdown and one HTML page.
"""

from mixplug.evaluation.card.job import Card, make_card
from mixplug.evaluation.card.settings import Settings
from mixplug.evaluation.card.subject import Data, Stream, Subject

__all__ = ["Card", "Data", "Settings", "Stream", "Subject", "make_card"]
