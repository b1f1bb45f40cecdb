"""`cdm report`: a stage, a sweep, a score or a store as one page."""
