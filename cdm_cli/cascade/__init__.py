"""One stage of a cascade, and how stages meet (Section 2.4)."""
