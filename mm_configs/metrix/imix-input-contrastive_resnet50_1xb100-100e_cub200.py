_base_ = './baseline-contrastive_resnet50_1xb100-100e_cub200.py'

# Results of the thesis, not of this code: R@1 65.8, R@2 76.2, R@4 84.9 % (Table 4.4)

model = dict(
    loss=dict(
        _delete_=True,
        type='IMix',
        level='input',
        loss={{_base_.model.loss}}))
