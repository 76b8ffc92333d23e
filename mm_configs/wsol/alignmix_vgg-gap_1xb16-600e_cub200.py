_base_ = './baseline_vgg-gap_1xb16-600e_cub200.py'

# the thesis' numbers, not ours: top-1 localization 53.7 %, MaxBoxAccV2 64.5 % (Table 3.7)

# A is the map before conv6, because alignment directly before average pooling has no effect
mixup = dict(type='AlignMixup', features='backbone.features')
