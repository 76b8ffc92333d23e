_base_ = './baseline-ms_resnet50_1xb100-100e_sop.py'

# Results of the thesis, not of this code: R@1 78.5, R@10 91.3, R@100 96.7 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='embed',
        loss={{_base_.model.loss}}))
