_base_ = './metric_100e_inshop.py'

optim_wrapper = dict(optimizer=dict(lr=3e-5))  # Table 4.2
