"""Faults of the platform that the pins avoid."""

from __future__ import annotations

import sys
from typing import Any

from PySide6.QtCore import QAbstractListModel, QIdentityProxyModel, QModelIndex, QPersistentModelIndex, Qt
from pytestqt.qtbot import QtBot

CALLS = 1000


class _AnswersNothing(QAbstractListModel):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def rowCount(self, parent: QModelIndex | QPersistentModelIndex = QModelIndex()) -> int:  # noqa: B008
        return 1

    def data(self, index: QModelIndex | QPersistentModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        self.asked += 1


def test_overrides_that_return_none_keep_none_alive(qtbot: QtBot) -> None:
    """PySide6 6.12.0 on CPython before 3.12 loses a reference to None with each such call."""
    model = _AnswersNothing()
    proxy = QIdentityProxyModel()
    proxy.setSourceModel(model)
    index = proxy.index(0, 0)
    before = sys.getrefcount(None)
    for _ in range(CALLS):
        proxy.data(index)
    after = sys.getrefcount(None)
    assert model.asked == CALLS
    assert abs(after - before) < CALLS / 10
