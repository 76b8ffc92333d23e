"""Run timm's own train.py with a mixer; see ``python -m timm_hooks.train --help``."""
