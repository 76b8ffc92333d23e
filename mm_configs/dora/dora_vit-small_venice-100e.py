# DoRA on one video (Tables 6.3 to 6.5).
_base_ = [
    '../_base_/models/dora_vit-small-p16.py',
    '../_base_/datasets/walking-tour_8xb16.py',
    '../_base_/schedules/selfsup_100e_adamw.py',
    '../_base_/selfsup_runtime.py',
]
