"""Vision transformers of timm and mmpretrain: encoders, and backbones for dense tasks."""

from mixplug.models.vit.class_tokens import class_tokens
from mixplug.models.vit.encoder import as_encoder, build_timm_vit
from mixplug.models.vit.encoder_base import Encoder, Tokens
from mixplug.models.vit.from_checkpoint import content_of, images_of, timm_model, vit_of
from mixplug.models.vit.pyramid import ViTPyramid
from mixplug.models.vit.timm_vit import TimmViT

__all__ = [
    "Encoder",
    "TimmViT",
    "Tokens",
    "ViTPyramid",
    "as_encoder",
    "build_timm_vit",
    "class_tokens",
    "content_of",
    "images_of",
    "timm_model",
    "vit_of",
]
