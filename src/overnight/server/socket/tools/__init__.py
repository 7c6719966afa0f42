"""The tool protocol on the server: which hosts offer what, and executions on their way from caller to host and back."""
