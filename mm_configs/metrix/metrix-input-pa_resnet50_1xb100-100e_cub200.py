_base_ = './baseline-pa_resnet50_1xb100-100e_cub200.py'

# Results of the thesis, not of this code: R@1 70.5, R@2 81.2, R@4 87.8 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='input',
        loss={{_base_.model.loss}}))
