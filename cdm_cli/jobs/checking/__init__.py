"""Verify, replay and inspect: what a file holds, and whether it is what was written."""
