_base_ = './baseline-ms_resnet50_1xb100-100e_cars196.py'

# Results of the thesis, not of this code: R@1 89.6, R@2 94.2, R@4 96.0 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='feature',
        loss={{_base_.model.loss}}))
