_base_ = './baseline-ms_resnet50_1xb100-100e_inshop.py'

# Results of the thesis, not of this code: R@1 91.9, R@10 98.3, R@20 98.7 % (Table 4.3)

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='embed',
        loss={{_base_.model.loss}}))
