"""The networks: modules and functions on tensors that know no schedule and no file."""
