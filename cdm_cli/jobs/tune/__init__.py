"""`cdm tune-schedule`: the noise schedule of few steps that gives the best FID (Section 4.4)."""
