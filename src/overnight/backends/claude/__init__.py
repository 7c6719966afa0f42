"""The Claude Code program: `claude -p --output-format stream-json`."""
