"""`cdm eval cas`: the Classification Accuracy Score (Table 1b)."""
