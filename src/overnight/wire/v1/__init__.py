"""Version 1 of the REST resources and commands."""
