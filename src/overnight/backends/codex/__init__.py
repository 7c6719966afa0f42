"""The Codex program: `codex exec --json`."""
