"""Every error of these tests can be said in another language."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.core.spoken import every_error_spoken


@pytest.fixture(autouse=True)
def sentences() -> Iterator[None]:
    """Fails a test in which an error says anything that no template says; the server of the tests has a word, too."""
    with every_error_spoken(but=("Blocked for your region", "port must be")):
        yield
