_base_ = './baseline-pa_resnet50_1xb100-100e_cars196.py'

# Results of the thesis, not of this code: R@1 87.9, R@2 92.8, R@4 95.6 % (Table 4.4)

model = dict(
    loss=dict(
        _delete_=True,
        type='ProxySynthesis',
        loss={{_base_.model.loss}}))
