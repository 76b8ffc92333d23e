# k-NN of Tables 6.5a and 6.6, k = 20, by the teacher's class tokens: to be tested
# with a checkpoint of a run of mm_configs/dora. DINO's have the same names.
_base_ = [
    '../_base_/models/dora_vit-small-p16.py',
    '../_base_/datasets/imagenet-knn_bs256.py',
    '../_base_/selfsup_runtime.py',
]
