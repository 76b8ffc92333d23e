# Backbone weights from a run of mm_configs/dora, for backbone.init_cfg.
weights = dict(
    type='mixplug.Pretrained',
    checkpoint='work_dirs/dora_vit-small_venice-100e/epoch_100.pth',
    part='teacher')
