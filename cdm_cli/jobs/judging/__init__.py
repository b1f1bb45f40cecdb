"""`cdm eval`: from images to features, and from features to numbers."""
