# CUB200-2011 (3.4.2): the learning rate of the classifier is ten times that of the other layers,
# which is 0.001 for R-50; both are multiplied by 0.1 every 150 epochs
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.001, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={'head.fc': dict(lr_mult=10)}))
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[150, 300, 450], gamma=0.1)

train_cfg = dict(by_epoch=True, max_epochs=600, val_interval=1)
val_cfg = dict()
test_cfg = dict()

auto_scale_lr = dict(base_batch_size=16)
