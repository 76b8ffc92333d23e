# decay "for SOP and In-Shop [...] by 0.25 for all losses" (4.4.1)
_base_ = './metric_100e.py'

param_scheduler = dict(gamma=0.25)
train_cfg = dict(val_interval=5)  # validation is slow: the test set is as large as the training set
