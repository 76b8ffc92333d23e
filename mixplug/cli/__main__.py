"""``python -m mixplug.cli``."""

from mixplug.cli import app

app()
