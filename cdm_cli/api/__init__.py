"""The Python API: what the commands do, with arrays in memory for files (docs/api.md)."""
