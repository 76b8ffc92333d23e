"""Everything that is built from an mm config outside of training: cards, maps, figures."""
