# DINO, the baseline, from the same parts: the student sees the global views without masks.
_base_ = './dora_vit-small-p16.py'

model = dict(
    _delete_=True,
    type='mixplug.DINO',
    backbone={{_base_.model.backbone}},
    head={{_base_.model.head}},
    schedule={{_base_.model.schedule}})
