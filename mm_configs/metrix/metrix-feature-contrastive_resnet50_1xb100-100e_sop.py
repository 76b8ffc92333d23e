_base_ = './baseline-contrastive_resnet50_1xb100-100e_sop.py'

# Results of the thesis, not of this code: R@1 77.5, R@10 89.1, R@100 95.5 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='feature',
        loss={{_base_.model.loss}}))
