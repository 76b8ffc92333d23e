_base_ = './baseline-pa_resnet50_1xb100-100e_sop.py'

# Results of the thesis, not of this code: R@1 81.3, R@10 91.7, R@100 96.9 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='feature',
        loss={{_base_.model.loss}}))
