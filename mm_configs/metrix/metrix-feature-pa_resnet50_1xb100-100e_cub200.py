_base_ = './baseline-pa_resnet50_1xb100-100e_cub200.py'

# Results of the thesis, not of this code: R@1 71.0, R@2 81.8, R@4 88.2 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='feature',
        loss={{_base_.model.loss}}))
