"""The baseline of every check: says back what it was told, in process."""
