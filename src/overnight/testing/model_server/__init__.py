"""A scripted model server: a real HTTP server that plays a list of moves to any coding agent."""

from __future__ import annotations

from overnight.models.script import Call, Fault, Move, Script, Turn, parse_script
from overnight.testing.model_server.server import ModelServer, RecordedRequest

__all__ = ["Call", "Fault", "ModelServer", "Move", "RecordedRequest", "Script", "Turn", "parse_script"]
