"""Backbones: images in, the maps of their stages out."""
