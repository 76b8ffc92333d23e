_base_ = './baseline-pa_resnet50_1xb100-100e_cars196.py'

# Results of the thesis, not of this code: R@1 89.1, R@2 93.6, R@4 96.7 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='feature',
        loss={{_base_.model.loss}}))
