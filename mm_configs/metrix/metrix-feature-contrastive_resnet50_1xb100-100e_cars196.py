_base_ = './baseline-contrastive_resnet50_1xb100-100e_cars196.py'

# Results of the thesis, not of this code: R@1 85.1, R@2 91.1, R@4 94.6 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='feature',
        loss={{_base_.model.loss}}))
