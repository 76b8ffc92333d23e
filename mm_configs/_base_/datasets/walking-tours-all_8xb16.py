# All ten videos, 1.5 M frames (Table 6.2).
_base_ = './walking-tour_8xb16.py'

train_dataloader = dict(
    dataset=dict(video='data/walking_tours', frames_per_epoch=1532000))
