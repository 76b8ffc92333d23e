_base_ = './baseline-contrastive_resnet50_1xb100-100e_cub200.py'

# Results of the thesis, not of this code: R@1 67.4, R@2 77.9, R@4 85.7 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='feature',
        loss={{_base_.model.loss}}))
