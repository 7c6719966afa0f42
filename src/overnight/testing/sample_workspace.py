"""A small project for agents to work in. `copy_to` makes a fresh one; its goal is `GOAL`."""

from __future__ import annotations

from pathlib import Path

GOAL = (
    "Add slugify(text) to textkit as README.md describes, in textkit/slugs.py, test-first. "
    "The work is done when all tests pass."
)

_README = """\
# textkit

Small functions for text. So far it can count words; it shall also make slugs.

- `textkit/counting.py`: `count_words(text)`
- `textkit/slugs.py`: `slugify(text)`, wanted: lower case, words joined by one hyphen each, everything that is
  neither a letter nor a digit left out, no hyphen at either end

Tests: `python -m unittest discover -s tests -t .`
"""
_COUNTING = '''\
"""Counting."""


def count_words(text: str) -> int:
    """The number of words, separated by white space."""
    return len(text.split())
'''
_TEST_COUNTING = """\
import unittest

from textkit.counting import count_words


class CountWords(unittest.TestCase):
    def test_counts_what_white_space_separates(self) -> None:
        self.assertEqual(count_words("two  words\\n"), 2)

    def test_nothing_has_no_words(self) -> None:
        self.assertEqual(count_words("   "), 0)
"""
FILES = {
    "README.md": _README,
    ".gitignore": "__pycache__/\n",
    "textkit/__init__.py": '"""Small functions for text."""\n',
    "textkit/counting.py": _COUNTING,
    "tests/__init__.py": "",
    "tests/test_counting.py": _TEST_COUNTING,
}
"""The project: text by path."""


def copy_to(folder: Path) -> Path:
    """Put a fresh copy of the sample project into `folder` (made if absent) and return it."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder
