_base_ = './baseline-contrastive_resnet50_1xb100-100e_cub200.py'

# Results of the thesis, not of this code: R@1 63.1, R@2 74.3, R@4 83.8 % (Table 4.4)

model = dict(
    loss=dict(
        _delete_=True,
        type='MoCHi',
        pairs='neg-neg',
        loss={{_base_.model.loss}}))
