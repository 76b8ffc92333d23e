_base_ = './baseline-ms_resnet50_1xb100-100e_sop.py'

# Results of the thesis, not of this code: R@1 77.9, R@10 90.6, R@100 95.9 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='input',
        loss={{_base_.model.loss}}))
