# Attacks of 3.4.3 and 5.4.2, in pixel space: FGSM with 8/255, PGD with 4/255 and steps of 2/255.
# The thesis gives no number of steps: here 10, starting at the image itself.
card = dict(
    ood=[],
    noise=(),
    attacks=dict(
        fgsm=dict(eps=8 / 255), pgd=dict(eps=4 / 255, step=2 / 255, iters=10)))
