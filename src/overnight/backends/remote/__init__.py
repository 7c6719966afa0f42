"""Runs that are carried out by whoever leases them over REST."""
