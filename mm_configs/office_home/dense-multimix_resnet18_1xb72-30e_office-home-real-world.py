_base_ = './baseline_resnet18_1xb72-30e_office-home-real-world.py'

# the thesis' number, not ours: accuracy 66.87 % (Table 5.8)

mixup = dict(type='DenseMultiMix')
