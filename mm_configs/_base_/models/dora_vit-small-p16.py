# ViT-S/16 with k = 3 objects, which are tracked from the first frame of a clip (6.5.2). Head,
# temperatures and center are those of DINO; only the student has stochastic depth.
model = dict(
    type='mixplug.DoRA',
    objects=3,
    backbone=dict(
        type='mixplug.TimmBackbone',
        model_name='vit_small_patch16_224',
        dynamic_img_size=True,
        drop_path_rate=0.1),
    head=dict(out_dim=65536),
    schedule=dict(
        ema_decay=(0.996, 1.0),
        teacher_temperature=(0.04, 0.04),
        freeze_last_layer_epochs=1))
