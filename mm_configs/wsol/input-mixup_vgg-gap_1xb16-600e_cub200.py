_base_ = './baseline_vgg-gap_1xb16-600e_cub200.py'

# the thesis' numbers, not ours: top-1 localization 41.7 %, MaxBoxAccV2 57.1 % (Table 3.7)

mixup = dict(type='InputMixup')
