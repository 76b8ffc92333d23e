"""The reliability card of a classifier: how robust, calibrated and aware of its limits it is.

Passes stream a data set through a network and keep what the numbers need (:mod:`.passes`); parts
make numbers of it (:mod:`.parts`); :mod:`.job` runs what is not in the cache yet, and
:mod:`.report` writes it as JSON, Markdown and one web page.
"""

from mixplug.evaluation.card.job import Card, make_card
from mixplug.evaluation.card.settings import Settings
from mixplug.evaluation.card.subject import Data, Stream, Subject

__all__ = ["Card", "Data", "Settings", "Stream", "Subject", "make_card"]
