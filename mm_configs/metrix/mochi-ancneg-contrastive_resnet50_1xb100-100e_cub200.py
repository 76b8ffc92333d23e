_base_ = './baseline-contrastive_resnet50_1xb100-100e_cub200.py'

# Results of the thesis, not of this code: R@1 65.2, R@2 75.8, R@4 84.2 % (Table 4.4)

model = dict(
    loss=dict(
        _delete_=True,
        type='MoCHi',
        pairs='anc-neg',
        loss={{_base_.model.loss}}))
