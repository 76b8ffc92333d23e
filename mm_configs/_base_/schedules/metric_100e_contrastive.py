# decay "by 0.1 for Cont" on CUB200 and Cars196 (4.4.1)
_base_ = './metric_100e.py'

param_scheduler = dict(gamma=0.1)
