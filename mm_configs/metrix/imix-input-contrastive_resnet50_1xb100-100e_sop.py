_base_ = './baseline-contrastive_resnet50_1xb100-100e_sop.py'

# Results of the thesis, not of this code: R@1 75.2, R@10 87.3, R@100 94.2 % (Table 4.4)

model = dict(
    loss=dict(
        _delete_=True,
        type='IMix',
        level='input',
        loss={{_base_.model.loss}}))
