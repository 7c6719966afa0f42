"""One statement for many rows of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from overnight.stores.sql.statements import Form, Link, Statement


def run_each(link: Link, statement: Statement, values: Sequence[Mapping[str, object]]) -> None:
    """Execute for every row, given by the names of its parameters. Nothing is sent for none."""
    if values:
        form: Form = getattr(statement, link.dialect)
        link.run_many(statement, [form.bind(one) for one in values])
