"""The notifier of a single process."""
