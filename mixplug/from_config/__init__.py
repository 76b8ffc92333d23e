"""Build from an mm config outside of training: reliability cards, heat maps, figures, decoders."""

from mixplug.scanning import lazy_names

_HOMES = {
    "backbone_of": "config",
    "decoding": "decoder",
    "draw_alignment": "alignment",
    "draw_embedding": "figures",
    "draw_positivity": "figures",
    "draw_retrieval": "figures",
    "embeddings_of": "embeddings",
    "heat_maps_of": "heat_maps",
    "read_config": "config",
    "wsol_of": "wsol",
}
__all__ = [*_HOMES]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
