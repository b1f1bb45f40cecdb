"""Sections 2 and 3 of the paper: tensors in, tensors out."""
