_base_ = './baseline-contrastive_resnet50_1xb100-100e_inshop.py'

# Results of the thesis, not of this code: R@1 88.4, R@10 95.4, R@20 96.8 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='embed',
        loss={{_base_.model.loss}}))
