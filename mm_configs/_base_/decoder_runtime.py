# Autoencoders of 3.3.3, trained on clean images only. There is no validation:
# the classifier is not trained, and the decoder is for pictures. The thesis
# gives no schedule. Adam, since its step does not depend on the scale of L_r,
# a sum over pixels.
_base_ = './default_runtime.py'

optim_wrapper = dict(optimizer=dict(type='Adam', lr=1e-3))
val_cfg = None
test_cfg = dict()
default_hooks = dict(checkpoint=dict(save_best=None))
