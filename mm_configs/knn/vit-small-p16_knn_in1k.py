# k-NN with the teacher's class tokens, k = 20 (Tables 6.5a and 6.6). Test it with a
# checkpoint of a run of mm_configs/dora; DINO's checkpoints have the same names.
_base_ = [
    '../_base_/models/dora_vit-small-p16.py',
    '../_base_/datasets/imagenet-knn_bs256.py',
    '../_base_/selfsup_runtime.py',
]
