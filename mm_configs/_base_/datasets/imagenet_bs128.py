# 5.4.1: b = 128, and all hyperparameters are per GPU. The base crops and flips,
# so there is no strong augmentation (5.4.1: no AutoAugment, RandAugment, random
# erasing or CutMix).
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs32.py'

train_dataloader = dict(batch_size=128)
val_dataloader = dict(batch_size=128)
test_dataloader = dict(batch_size=128)
