_base_ = './baseline-pa_resnet50_1xb100-100e_sop.py'

# Results of the thesis, not of this code: R@1 79.6, R@10 90.9, R@100 96.4 % (Table 4.4)

model = dict(
    loss=dict(
        _delete_=True,
        type='ProxySynthesis',
        loss={{_base_.model.loss}}))
