_base_ = './baseline-ms_wrn10-1_1xb64-10e_digits.py'

model = dict(
    loss=dict(
        _delete_=True,
        type='Metrix',
        level='input',
        loss={{_base_.model.loss}}))
