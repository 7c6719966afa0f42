"""The `overnight` command: one file for each group of commands, loaded only when it is used."""

from __future__ import annotations


def main() -> None:
    """Run the command line of this process and exit with the documented status."""
    from overnight.cli.app import run

    run()
