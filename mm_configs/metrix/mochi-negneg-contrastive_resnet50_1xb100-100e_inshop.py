_base_ = './baseline-contrastive_resnet50_1xb100-100e_inshop.py'

# Results of the thesis, not of this code: R@1 81.8, R@10 91.9, R@20 93.9 % (Table 4.4)

model = dict(
    loss=dict(
        _delete_=True,
        type='MoCHi',
        pairs='neg-neg',
        loss={{_base_.model.loss}}))
