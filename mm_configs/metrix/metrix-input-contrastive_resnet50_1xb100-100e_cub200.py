_base_ = './baseline-contrastive_resnet50_1xb100-100e_cub200.py'

# Results of the thesis, not of this code: R@1 66.3, R@2 77.1, R@4 85.2 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='input',
        loss={{_base_.model.loss}}))
