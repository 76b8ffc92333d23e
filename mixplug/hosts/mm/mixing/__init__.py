"""The key ``mixup`` in models of mmpretrain, mmdet and mmseg."""
