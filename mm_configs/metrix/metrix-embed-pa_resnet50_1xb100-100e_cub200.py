_base_ = './baseline-pa_resnet50_1xb100-100e_cub200.py'

# Results of the thesis, not of this code: R@1 70.4, R@2 81.1, R@4 87.9 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='embed',
        loss={{_base_.model.loss}}))
