_base_ = './baseline-pa_resnet50_1xb100-100e_cars196.py'

# Results of the thesis, not of this code: R@1 88.2, R@2 93.2, R@4 96.2 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='input',
        loss={{_base_.model.loss}}))
