"""`python -m overnight.testing.agents install [NAME|usual|all]` and `… where`."""

from __future__ import annotations

import argparse
import sys

from overnight.testing.agents.install import NAMES, USUAL, AgentsUnavailable, install, programs


def main() -> int:
    """Install or list; exit status 1 with the reason when it cannot be done."""
    parser = argparse.ArgumentParser(prog="overnight.testing.agents", description=__doc__)
    parser.add_argument("action", choices=("install", "where"))
    parser.add_argument("which", nargs="?", default="usual", choices=(*NAMES, "usual", "all"))
    chosen = parser.parse_args()
    try:
        if chosen.action == "install":
            groups = {"usual": USUAL, "all": NAMES}
            install(groups.get(chosen.which, (chosen.which,)), say=_say)
        else:
            for name, path in programs().items():
                _say(f"{name} {path}")
    except AgentsUnavailable as error:
        sys.stderr.write(f"agents: {error}\n")
        return 1
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
