_base_ = './baseline-ms_resnet50_1xb100-100e_cars196.py'

# Results of the thesis, not of this code: R@1 88.8, R@2 92.9, R@4 95.6 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='embed',
        loss={{_base_.model.loss}}))
