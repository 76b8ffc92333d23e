_base_ = './baseline-contrastive_resnet50_1xb100-100e_sop.py'

# Results of the thesis, not of this code: R@1 75.8, R@10 87.8, R@100 94.6 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='input',
        loss={{_base_.model.loss}}))
