"""Waiting for a server that is away, or has only just come back."""

from __future__ import annotations

import pytest

from overnight.client.editor import patience
from overnight.client.editor.patience import patiently
from overnight.errors import Draining, NotFound, OvernightError, Unauthorized, Unreachable

pytestmark = pytest.mark.anyio


class Server:
    """Answers once it has raised all of these."""

    def __init__(self, *errors: OvernightError) -> None:
        self.errors = list(errors)

    async def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "here"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "REST_S", 0)


async def test_a_server_that_starts_again_is_waited_for_and_its_new_token_too() -> None:
    away = (
        Unreachable("away"),
        Draining("ending"),
        Unreachable("away"),
        Unauthorized("who?"),
        Unauthorized("who?"),
    )
    assert await patiently(Server(*away)) == "here"


async def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreachable):
        await patiently(Server(*[Unreachable("away")] * 1000), within_s=0)
    monkeypatch.setattr(patience, "STRANGER_S", 0)
    with pytest.raises(Unauthorized):
        await patiently(Server(*[Unauthorized("who?")] * 1000))


async def test_an_answer_that_is_an_error_is_one() -> None:
    with pytest.raises(NotFound):
        await patiently(Server(NotFound("gone")))
