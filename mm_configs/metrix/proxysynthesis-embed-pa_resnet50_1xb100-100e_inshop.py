_base_ = './baseline-pa_resnet50_1xb100-100e_inshop.py'

# Results of the thesis, not of this code: R@1 90.3, R@10 97.4, R@20 98.0 % (Table 4.4)

model = dict(
    loss=dict(
        _delete_=True,
        type='ProxySynthesis',
        loss={{_base_.model.loss}}))
