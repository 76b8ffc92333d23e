"""Thin layers between the mixers and the hosts: timm, OpenMMLab, plain torch modules."""
