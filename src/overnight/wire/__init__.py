"""What travels to clients: resources, commands, problem documents and frames. Nothing here does I/O."""
