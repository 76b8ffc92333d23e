_base_ = './baseline-proxyncapp_resnet50_1xb100-100e_cub200.py'

# Results of the thesis, not of this code: R@1 69.7, R@2 79.9, R@4 88.3 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='input',
        loss={{_base_.model.loss}}))
