# The optimizer that 6.5.3 names: "LARS with a learning rate of 5e-4".
_base_ = './selfsup_100e_adamw.py'

optim_wrapper = dict(
    optimizer=dict(
        _delete_=True,
        type='LARS',
        lr=5e-4,
        momentum=0.9,
        weight_decay=0.04))
