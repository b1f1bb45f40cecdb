"""From a stage and what it is conditioned on to a store of its samples."""
