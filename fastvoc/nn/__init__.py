"""Layers: parameters under their published names, and the ops that use them."""
