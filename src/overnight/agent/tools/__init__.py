"""What the built-in agent can do by itself: read, search, patch, run commands, look at pictures, keep a plan."""
