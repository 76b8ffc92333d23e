"""timm: its models in stages, its training task with a mixer, its networks on a card."""
