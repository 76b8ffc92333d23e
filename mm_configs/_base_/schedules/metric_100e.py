# 4.4.1 and Table 4.2. The thesis decays the learning rate "by 0.5" but does not say when: here
# after 30, 60 and 90 epochs. It gives no rate for proxies: here 100 times the network's, as in
# Proxy Anchor.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={'loss.proxies': dict(lr_mult=100)}))
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[30, 60, 90], gamma=0.5)

train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()

auto_scale_lr = dict(base_batch_size=100)
