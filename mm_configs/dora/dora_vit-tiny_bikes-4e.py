# A quick run of a minute on two cores, without a download: ten seconds of a street in clips of 4
# frames. It shows that everything works; it is too short to learn useful features.
_base_ = ['../_base_/selfsup_runtime.py']

model = dict(
    type='mixplug.DoRA',
    objects=3,
    backbone=dict(
        type='mixplug.TimmBackbone',
        model_name='vit_tiny_patch16_224',
        img_size=64,
        patch_size=8,
        embed_dim=96,
        depth=3,
        num_heads=6,
        dynamic_img_size=True),
    head=dict(out_dim=256, hidden=256, bottleneck=64),
    schedule=dict(
        ema_decay=(0.996, 1.0),
        teacher_temperature=(0.02, 0.02),
        freeze_last_layer_epochs=1))
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='mixplug.ClipSampler'),
    dataset=dict(
        type='mixplug.VideoClips',
        video='shipped:bikes',
        index='build',
        frames=4,
        interval=0.2,
        crop=224,
        frames_per_epoch=640,
        # a few scenes are not enough for strong color changes
        views=dict(large=64, small=32, smalls=4, jitter_p=0.0, gray=0.0, solarize=(0.0, 0.0, 0.0))))
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.04), clip_grad=dict(max_norm=3.0))
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=4, eta_min=1e-5, by_epoch=True, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingWeightDecay',
        eta_min=0.4,
        by_epoch=True,
        begin=0,
        end=4,
        convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=4)
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(logger=dict(interval=10))
