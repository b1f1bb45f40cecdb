"""Images of a store as one picture."""
