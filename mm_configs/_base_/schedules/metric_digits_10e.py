# a quick run of less than a minute on two cores; not the schedule of the thesis
_base_ = './metric_100e.py'

optim_wrapper = dict(
    optimizer=dict(lr=5e-3),
    paramwise_cfg=dict(custom_keys={'loss.proxies': dict(lr_mult=10)}))
param_scheduler = dict(
    _delete_=True, type='CosineAnnealingLR', T_max=10, by_epoch=True)
train_cfg = dict(max_epochs=10)
auto_scale_lr = dict(base_batch_size=64)
