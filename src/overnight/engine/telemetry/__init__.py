"""From what a backend and the workspace report to the events of a turn."""
