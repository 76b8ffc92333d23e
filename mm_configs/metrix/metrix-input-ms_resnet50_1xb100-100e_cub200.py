_base_ = './baseline-ms_resnet50_1xb100-100e_cub200.py'

# Results of the thesis, not of this code: R@1 69.0, R@2 79.1, R@4 86.0 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='input',
        loss={{_base_.model.loss}}))
