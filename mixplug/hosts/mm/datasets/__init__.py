"""Data sets, samplers and transforms for mmengine. A file here is found without a list."""

from mixplug.scanning import lazy_package

__getattr__, __dir__ = lazy_package(__name__)
