_base_ = './baseline-contrastive_resnet50_1xb100-100e_sop.py'

# Results of the thesis, not of this code: R@1 75.8, R@10 87.1, R@100 94.8 % (Table 4.4)

model = dict(
    loss=dict(
        _delete_=True,
        type='MoCHi',
        pairs='anc-neg',
        loss={{_base_.model.loss}}))
