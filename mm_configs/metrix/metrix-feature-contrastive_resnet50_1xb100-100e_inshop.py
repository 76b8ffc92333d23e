_base_ = './baseline-contrastive_resnet50_1xb100-100e_inshop.py'

# Results of the thesis, not of this code: R@1 89.1, R@10 95.7, R@20 97.1 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='feature',
        loss={{_base_.model.loss}}))
