"""`python -m overnight.testing.model_server --script FILE [--port 0]`: prints `{"url": …}`, serves until a signal."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from overnight.testing.model_server.server import ModelServer


def main() -> None:
    """Read the script, say where it listens, serve."""
    parser = argparse.ArgumentParser(prog="overnight.testing.model_server", description=__doc__)
    parser.add_argument("--script", required=True, help="a JSON file, or - for standard input")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    chosen = parser.parse_args()
    text = sys.stdin.read() if chosen.script == "-" else Path(chosen.script).read_text(encoding="utf-8")
    server = ModelServer(text, port=chosen.port)
    sys.stdout.write(json.dumps({"url": server.url}) + "\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
