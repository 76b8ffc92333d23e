_base_ = './baseline-proxyncapp_resnet50_1xb100-100e_sop.py'

# Results of the thesis, not of this code: R@1 81.1, R@10 92.4, R@100 97.0 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='embed',
        loss={{_base_.model.loss}}))
