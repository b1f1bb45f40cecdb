"""What a GPU runs faster as one kernel or one recording, beside the same in plain torch."""
