# 5.4.1, ImageNet with ViT-S/16: "AdamW with default parameters", which are
# PyTorch's, at a rate of 0.01; no warm-up and no clipping are mentioned.
_base_ = './imagenet_300e_sgd.py'

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.01))
