"""MCP servers as hosts of tools: programs on this machine, or servers at a URL."""
