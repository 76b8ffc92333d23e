# a quick run of about a minute on two cores; not the schedule of the thesis
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.3, momentum=0.9, weight_decay=1e-4, nesterov=True))
param_scheduler = dict(type='CosineAnnealingLR', T_max=10, by_epoch=True)
train_cfg = dict(by_epoch=True, max_epochs=10, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64)
