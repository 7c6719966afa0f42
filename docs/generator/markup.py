"""Markdown that stays what it is, whatever is put into it."""

from collections.abc import Iterable


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; pipes and line ends inside a cell are made harmless."""
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join("| " + " | ".join(map(_cell, line)) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def fence(text: str) -> str:
    """The text as a block that is shown as it stands."""
    return f"```text\n{text.strip()}\n```\n"
