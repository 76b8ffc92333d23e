# DINO's protocol, which 6.5.3 follows: learning rate 0.001 for a batch of 256, so
# 0.004 for 1024, with cosine decay to 0.
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=4e-3, momentum=0.9, weight_decay=0.))
param_scheduler = dict(type='CosineAnnealingLR', T_max=100, eta_min=0., by_epoch=True)

train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()

auto_scale_lr = dict(base_batch_size=1024)
