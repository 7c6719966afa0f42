"""Patches: their grammar, where each piece fits, and writing all of it or nothing."""
