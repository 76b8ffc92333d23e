_base_ = './default_runtime.py'

# nothing is better or worse while there is no validation
default_hooks = dict(checkpoint=dict(save_best=None))
