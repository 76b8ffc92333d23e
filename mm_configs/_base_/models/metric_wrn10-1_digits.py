# 80k parameters; the last map of 16x16 images is 64x4x4
model = dict(
    type='mixplug.MetricLearner',
    backbone=dict(type='mixplug.WideResNet', depth=10, widen_factor=1),
    embedding=dict(dim=64, pool='avg+max'))
