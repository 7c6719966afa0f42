"""What is not the address of a server is refused before anything is sent to it."""

from __future__ import annotations

import pytest

from overnight.client import Endpoint
from overnight.client.transport import Transport
from overnight.errors import ConfigInvalid


@pytest.mark.parametrize(
    "url",
    [
        "", "nights.example", "127.0.0.1:4010", "http://", "ftp://nights.example", "http://nights.example:port",
        "http://nights.example:99999", "http://[::1", "http://nights. example", "http://nights.example/\n",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigInvalid, match="not the URL of a server") as refused:
        Endpoint(url, "token")
    assert "http://127.0.0.1:4010" in refused.value.mend


def test_a_password_in_the_address_would_take_the_place_of_the_token() -> None:
    with pytest.raises(ConfigInvalid) as refused:
        Endpoint("https://me:hush-hush@nights.example", "token")
    assert "hush" not in refused.value.detail + refused.value.mend
    with pytest.raises(ConfigInvalid) as refused:
        Endpoint("https://me:hush-hush@nights.example:port", "token")
    assert "hush" not in refused.value.detail + refused.value.mend


@pytest.mark.parametrize("url", ["http://127.0.0.1:4010", "https://nights.example/", "http://[::1]:4010"])
def test_an_address_is_taken(url: str) -> None:
    assert Transport(Endpoint(url, "token")).endpoint.url == url
