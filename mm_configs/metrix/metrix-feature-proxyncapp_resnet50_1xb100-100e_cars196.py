_base_ = './baseline-proxyncapp_resnet50_1xb100-100e_cars196.py'

# Results of the thesis, not of this code: R@1 88.5, R@2 93.4, R@4 96.5 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='feature',
        loss={{_base_.model.loss}}))
