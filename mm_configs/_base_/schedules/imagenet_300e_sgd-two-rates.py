# ImageNet with R-50 (3.4.2): learning rate 0.1 for the classifier, 0.01 for all other layers
_base_ = './imagenet_300e_sgd.py'

optim_wrapper = dict(
    optimizer=dict(lr=0.01),
    paramwise_cfg=dict(custom_keys={'head.fc': dict(lr_mult=10)}))

auto_scale_lr = dict(base_batch_size=100)
