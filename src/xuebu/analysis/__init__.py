"""Statistics of a training history that a referee would sign; needs no torch."""
