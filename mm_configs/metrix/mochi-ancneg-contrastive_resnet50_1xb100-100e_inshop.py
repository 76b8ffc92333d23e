_base_ = './baseline-contrastive_resnet50_1xb100-100e_inshop.py'

# Results of the thesis, not of this code: R@1 87.2, R@10 92.8, R@20 94.9 % (Table 4.4)

model = dict(
    loss=dict(
        _delete_=True,
        type='MoCHi',
        pairs='anc-neg',
        loss={{_base_.model.loss}}))
