_base_ = './baseline-pa_resnet50_1xb100-100e_inshop.py'

# Results of the thesis, not of this code: R@1 90.9, R@10 98.1, R@20 98.4 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='input',
        loss={{_base_.model.loss}}))
