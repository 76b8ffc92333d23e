# ImageNet with ViT-S/16 (5.4.1): "AdamW with default parameters", here those of
# PyTorch, with a learning rate of 0.01; neither warm-up nor clipping is mentioned.
_base_ = './imagenet_300e_sgd.py'

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.01))
