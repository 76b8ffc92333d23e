# Linear probes (Tables 6.5a and 6.6). The other configs in this folder set the weights.
_base_ = [
    '../_base_/models/linear_vit-small-p16.py',
    '../_base_/datasets/imagenet-linear_8xb128.py',
    '../_base_/schedules/linear_100e_sgd.py',
    '../_base_/default_runtime.py',
]
