"""`cdm eval checkpoints`: the FID of every saved state of a stage."""
