_base_ = './baseline-contrastive_resnet50_1xb100-100e_cars196.py'

# Results of the thesis, not of this code: R@1 76.3, R@2 84.0, R@4 89.3 % (Table 4.4)

model = dict(
    loss=dict(
        _delete_=True,
        type='MoCHi',
        pairs='neg-neg',
        loss={{_base_.model.loss}}))
