# Autoencoders trained on clean images only (3.3.3). There is no validation,
# because the classifier is not trained and the decoder only draws pictures. The
# thesis gives no schedule. The optimizer is Adam, because its step does not
# depend on the scale of L_r, which is a sum over pixels.
_base_ = './default_runtime.py'

optim_wrapper = dict(optimizer=dict(type='Adam', lr=1e-3))
val_cfg = None
test_cfg = dict()
default_hooks = dict(checkpoint=dict(save_best=None))
