"""The only reader of the environment and of configuration files; nothing in a workspace is ever read."""
