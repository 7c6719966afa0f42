"""What is taken for a message of the protocol."""

import json

import pytest

from overnight.backends.acp import rpc


@pytest.mark.parametrize("id", [0, -7, "", "a", "x" * rpc.MOST_ID])
def test_an_id_is_a_number_or_a_short_text(id: int | str) -> None:
    read = rpc.read(json.dumps({"jsonrpc": "2.0", "id": id, "method": "m"}).encode())
    assert read == rpc.Request(id, "m", {})


@pytest.mark.parametrize("id", [None, True, 1.5, [1], "x" * (rpc.MOST_ID + 1)])
def test_whatever_else_is_none(id: object) -> None:
    """Long ones would be kept and looked up by an index, which takes no long ones."""
    read = rpc.read(json.dumps({"jsonrpc": "2.0", "id": id, "method": "m"}).encode())
    assert isinstance(read, rpc.Broken)
    assert read.id is None
