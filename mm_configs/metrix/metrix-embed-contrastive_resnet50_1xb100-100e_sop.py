_base_ = './baseline-contrastive_resnet50_1xb100-100e_sop.py'

# Results of the thesis, not of this code: R@1 76.7, R@10 88.6, R@100 95.2 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='embed',
        loss={{_base_.model.loss}}))
