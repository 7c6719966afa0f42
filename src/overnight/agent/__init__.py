"""The built-in coding agent: a program of its own that speaks the Agent Client Protocol over stdio."""
