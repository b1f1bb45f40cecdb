"""`cdm sweep-s`: one low-resolution store upsampled and judged for every s (Table 3a)."""
