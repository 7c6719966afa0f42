"""What the notifiers that reach other processes have in common."""
