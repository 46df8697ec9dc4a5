"""Backbones: an image in, feature maps of several strides out."""
