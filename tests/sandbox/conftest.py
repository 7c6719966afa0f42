from collections.abc import Iterator

import pytest
from tests.sandbox.estate import Estate, estate


@pytest.fixture(scope="module")
def place() -> Iterator[Estate]:
    """An installation with secrets; one for a whole file, as most turns change nothing outside their own folders."""
    with estate() as made:
        yield made
