"""Writes the reference pages under docs/reference from the code, or checks that they are up to date.

python docs/generate.py            write every page
python docs/generate.py --check    exit 1 and name each page that differs from the code
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from generator.cli import cli_page
from generator.failures import failures_page
from generator.rest import rest_page
from generator.socket import asyncapi_document, schema_document, socket_page
from generator.tables import errors_page, events_page, settings_page, states_page

REFERENCE = Path(__file__).resolve().parent / "reference"
NOTE = "<!-- Written by docs/generate.py from the code; edit the code, then run `make docs`. -->\n"
PAGES: dict[str, Callable[[], str]] = {
    "states": states_page,
    "events": events_page,
    "errors": errors_page,
    "failures": failures_page,
    "settings": settings_page,
    "cli": cli_page,
    "rest": rest_page,
    "socket": socket_page,
}
DOCUMENTS: dict[str, Callable[[], str]] = {
    "socket.schema.json": schema_document,
    "socket.asyncapi.json": asyncapi_document,
}
"""For programs: nothing but what the format has."""


def pages() -> dict[Path, str]:
    """Every page's place and the content that it should have."""
    texts = {REFERENCE / f"{name}.md": NOTE + "\n" + make().rstrip() + "\n" for name, make in PAGES.items()}
    return texts | {REFERENCE / name: make() + "\n" for name, make in DOCUMENTS.items()}


def stale() -> list[str]:
    """What is wrong with the pages on disk: those that differ, and those that nothing makes."""
    wanted = pages()
    differs = [
        f"{path.name} is not what the code says" for path, text in wanted.items() if _read(path) != text
    ]
    strays = [f"{path.name} is made by nothing" for path in sorted(REFERENCE.glob("*")) if path not in wanted]
    return differs + strays


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def main() -> int:
    """Run from the command line; the exit status is 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only compare, and exit 1 if a page is stale")
    if parser.parse_args().check:
        found = stale()
        for line in found:
            print(f"docs/reference/{line}; run `make docs`", file=sys.stderr)
        return 1 if found else 0
    REFERENCE.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
