_base_ = './baseline-contrastive_resnet50_1xb100-100e_inshop.py'

# Results of the thesis, not of this code: R@1 87.1, R@10 95.4, R@20 96.1 % (Table 4.4)

model = dict(
    loss=dict(
        _delete_=True,
        type='IMix',
        level='input',
        loss={{_base_.model.loss}}))
