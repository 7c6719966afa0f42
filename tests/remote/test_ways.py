"""By which way a worker elsewhere reaches its server: straight, or by the proxy that the environment names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from overnight.client.endpoint import Endpoint
from overnight.client.transport import Transport
from overnight.client.worker.calls import Calls
from overnight.compose.remote import _calls
from overnight.config.settings import load

FAR, NEAR, PLAIN = "https://nights.example", "https://127.0.0.1:4010", "http://nights.example"


@pytest.mark.parametrize(
    "url, environment, way",
    [
        (FAR, {}, Calls),
        (FAR, {"HTTPS_PROXY": "http://proxy.example:3128"}, Transport),
        (FAR, {"https_proxy": "http://proxy.example:3128"}, Transport),
        (FAR, {"ALL_PROXY": "http://proxy.example:3128"}, Transport),
        (FAR, {"HTTPS_PROXY": "", "HTTP_PROXY": "http://proxy.example:3128"}, Calls),
        (PLAIN, {"http_proxy": "http://proxy.example:3128"}, Transport),
        (NEAR, {"HTTPS_PROXY": "http://proxy.example:3128", "all_proxy": "http://proxy.example:3128"}, Calls),
    ],
)
def test_a_proxy_is_for_what_is_not_on_this_machine(
    tmp_path: Path, url: str, environment: Mapping[str, str], way: type[Calls | Transport]
) -> None:
    settings = load({"HOME": str(tmp_path), **environment}, cwd=tmp_path)
    assert type(_calls(settings, Endpoint(url, "ovn_token"))) is way
