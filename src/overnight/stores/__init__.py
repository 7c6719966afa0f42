"""Adapters of the unit-of-work and notifier ports."""
