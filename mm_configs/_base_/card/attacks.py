# 3.4.3 and 5.4.2: 8/255 for FGSM, 4/255 in steps of 2/255 for PGD, in pixel space. The thesis does
# not say how many steps: 10, from the image itself.
card = dict(
    ood=[],
    noise=(),
    attacks=dict(
        fgsm=dict(eps=8 / 255), pgd=dict(eps=4 / 255, step=2 / 255, iters=10)))
