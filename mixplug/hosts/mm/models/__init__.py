"""Models, backbones and initializers for mmengine."""
