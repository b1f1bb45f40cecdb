"""Checkpoints of other programs, read without running anything in them, as stages of ours."""
