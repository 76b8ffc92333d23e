_base_ = './baseline-proxyncapp_resnet50_1xb100-100e_cub200.py'

# Results of the thesis, not of this code: R@1 70.4, R@2 80.6, R@4 88.7 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='feature',
        loss={{_base_.model.loss}}))
