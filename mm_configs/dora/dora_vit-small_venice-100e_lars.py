# DoRA on one video with the optimizer that 6.5.3 names.
_base_ = [
    '../_base_/models/dora_vit-small-p16.py',
    '../_base_/datasets/walking-tour_8xb16.py',
    '../_base_/schedules/selfsup_100e_lars.py',
    '../_base_/selfsup_runtime.py',
]
