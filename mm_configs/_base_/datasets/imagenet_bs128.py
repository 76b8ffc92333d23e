# b = 128, and all hyperparameters are per GPU (5.4.1). The base only crops and
# flips; there is no strong augmentation such as AutoAugment, RandAugment, random
# erasing or CutMix (5.4.1).
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs32.py'

train_dataloader = dict(batch_size=128)
val_dataloader = dict(batch_size=128)
test_dataloader = dict(batch_size=128)
