"""Pixels and files: images, sources of images, and the store that holds them."""
