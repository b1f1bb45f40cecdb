"""`cdm train`: from a prepared store to checkpoints of one stage, or of a classifier."""
