"""Runs timm's own train.py with a mixer bound in; see ``python -m timm_hooks.train --help``."""
