"""Every code comes back as the class it left as."""

import json

import pytest

from overnight.client.problems import error_of
from overnight.errors import BackendFailure, InvalidTransition, NotFound, OvernightError, Unavailable, tree


def thrown(kind: type[OvernightError]) -> OvernightError:
    if issubclass(kind, InvalidTransition):
        return kind("completed", "pause")
    if issubclass(kind, BackendFailure):
        return kind("it broke", code="backend_failure", retryable=True)
    return kind("what was wrong", mend="how to mend it", extra={"earliest": 3})


def document(error: OvernightError) -> bytes:
    body = {
        "type": "x", "title": error.title, "status": error.status, "detail": error.detail, "code": error.code,
        "mend": error.mend, **error.extra, "retryable": getattr(error, "retryable", None),
    }  # fmt: skip
    return json.dumps(body).encode()


@pytest.mark.parametrize("kind", tree(), ids=lambda kind: kind.code)
def test_each_code_is_rebuilt(kind: type[OvernightError]) -> None:
    error = thrown(kind)
    found = error_of(kind.status, document(error))
    assert type(found) is kind
    assert (found.code, found.detail, found.mend) == (kind.code, error.detail, error.mend)
    assert error.extra.items() <= found.extra.items()
    assert str(found) == error.detail


def test_the_codes_are_unique() -> None:
    assert len({kind.code for kind in tree()}) == len(tree())


def test_what_is_no_problem_document_is_named_by_its_status() -> None:
    assert type(error_of(404, b"<html>nothing here</html>")) is NotFound
    assert "502" in error_of(502, b"").detail
    assert isinstance(error_of(503, b'["not an object"]'), Unavailable)
    newer = error_of(404, b'{"code": "something_new", "detail": "words"}')
    assert (type(newer), newer.detail) == (NotFound, "words")
