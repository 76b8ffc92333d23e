# Clips of 8 frames, one second apart, with one 300x300 crop at the same position in all frames,
# then two global and six local crops (6.5.2). 16 clips on each of 8 GPUs (6.5.3). An epoch has as
# many frames as Table 6.2 gives for Venice, in clips of 8.
train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='mixplug.ClipSampler'),
    dataset=dict(
        type='mixplug.VideoClips',
        video='data/walking_tours/venice.mp4',
        frames=8,
        interval=1.0,
        crop=300,
        frames_per_epoch=197800,
        views=dict(
            large=224,
            small=96,
            smalls=6,
            large_scale=(0.4, 1.0),
            small_scale=(0.05, 0.4))))
