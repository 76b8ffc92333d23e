_base_ = './baseline_resnet50_1xb16-600e_cub200.py'

# the thesis' numbers, not ours: top-1 localization 57.8 %, MaxBoxAccV2 65.9 % (Table 3.7)

mixup = dict(type='AlignMixup')
