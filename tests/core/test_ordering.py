"""Names in the order in which people count."""

from __future__ import annotations

from core.ordering import natural

LONG = "9" * 5000


def test_numbers_count() -> None:
    names = ["layers.x", "layers.10.k", f"layers.{LONG}.k", "layers.2.k", "layers.010.a", "2", "", "layers.²"]
    assert sorted(names, key=natural) == [
        "", "2", "layers.2.k", "layers.010.a", "layers.10.k", f"layers.{LONG}.k", "layers.x", "layers.²",
    ]  # fmt: skip
