_base_ = './baseline-proxyncapp_resnet50_1xb100-100e_sop.py'

# Results of the thesis, not of this code: R@1 80.9, R@10 92.2, R@100 96.9 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='input',
        loss={{_base_.model.loss}}))
