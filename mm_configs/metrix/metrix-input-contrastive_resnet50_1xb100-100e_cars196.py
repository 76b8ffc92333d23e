_base_ = './baseline-contrastive_resnet50_1xb100-100e_cars196.py'

# Results of the thesis, not of this code: R@1 82.9, R@2 89.3, R@4 93.7 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='input',
        loss={{_base_.model.loss}}))
