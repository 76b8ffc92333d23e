# 4.4.1: "for SOP and In-Shop [...] by 0.25 for all losses"
_base_ = './metric_100e.py'

param_scheduler = dict(gamma=0.25)
train_cfg = dict(val_interval=5)  # the test set is as large as the training set
