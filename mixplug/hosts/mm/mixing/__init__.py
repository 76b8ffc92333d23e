"""The ``mixup`` key for models of mmpretrain, mmdet and mmseg."""
