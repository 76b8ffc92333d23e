# 100 epochs, learning rate 5e-4 with cosine decay to 1e-6 (6.5.3). AdamW, warm-up and weight decay
# from 0.04 to 0.4 are those of DINO. Gradients are clipped at DINO's norm of 3; mmengine clips the
# norm of all gradients, DINO that of each parameter. The thesis names LARS, see
# selfsup_100e_lars.py.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.04),
    clip_grad=dict(max_norm=3.0),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        begin=0,
        end=10,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=90,
        eta_min=1e-6,
        by_epoch=True,
        begin=10,
        end=100,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingWeightDecay',
        eta_min=0.4,
        by_epoch=True,
        begin=0,
        end=100,
        convert_to_iter_based=True),
]

train_cfg = dict(by_epoch=True, max_epochs=100)

auto_scale_lr = dict(base_batch_size=128)
