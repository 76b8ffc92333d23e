_base_ = './baseline-pa_resnet50_1xb100-100e_sop.py'

# Results of the thesis, not of this code: R@1 80.6, R@10 91.7, R@100 96.6 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='embed',
        loss={{_base_.model.loss}}))
