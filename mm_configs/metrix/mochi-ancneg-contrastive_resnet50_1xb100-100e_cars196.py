_base_ = './baseline-contrastive_resnet50_1xb100-100e_cars196.py'

# Results of the thesis, not of this code: R@1 82.5, R@2 88.0, R@4 92.9 % (Table 4.4)

model = dict(
    loss=dict(
        _delete_=True,
        type='MoCHi',
        pairs='anc-neg',
        loss={{_base_.model.loss}}))
