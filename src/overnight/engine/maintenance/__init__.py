"""Background duties: one file for each, each with a `once` that does it a single time."""
