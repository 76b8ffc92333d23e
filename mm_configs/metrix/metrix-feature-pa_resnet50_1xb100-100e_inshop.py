_base_ = './baseline-pa_resnet50_1xb100-100e_inshop.py'

# Results of the thesis, not of this code: R@1 91.9, R@10 98.2, R@20 98.8 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='feature',
        loss={{_base_.model.loss}}))
