"""OpenMMLab: mixing in its models, and our models, data sets, evaluators and hooks for it."""
