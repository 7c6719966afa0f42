"""One file per resource; each names its operations as data."""
