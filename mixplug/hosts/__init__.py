"""Adapters to the frameworks that train: timm, and OpenMMLab (mm)."""
