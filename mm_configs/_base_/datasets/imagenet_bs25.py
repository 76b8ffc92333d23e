# "a batch size of 100 on 4 GPUs" (3.4.2), read as 100 in total
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs32.py'

train_dataloader = dict(batch_size=25)
