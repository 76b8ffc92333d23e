_base_ = './baseline-ms_resnet50_1xb100-100e_sop.py'

# Results of the thesis, not of this code: R@1 81.0, R@10 92.0, R@100 97.2 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='feature',
        loss={{_base_.model.loss}}))
