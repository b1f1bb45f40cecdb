"""Cascaded diffusion models on the command line."""
