_base_ = './default_runtime.py'

# without validation there is no score to select a checkpoint by
default_hooks = dict(checkpoint=dict(save_best=None))
