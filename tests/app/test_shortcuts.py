"""Shortcuts that are changed work at once and after the next start, and none stands for two commands."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeySequence
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QDialogButtonBox
from pytestqt.qtbot import QtBot

from app.settings import Settings
from app.shortcuts import Shortcuts
from app.window import Window
from tests.app.conftest import Open


def dialog_of(window: Window) -> Shortcuts:
    window.actions_table["shortcuts"].trigger()
    dialog = window.findChildren(Shortcuts)[-1]
    assert dialog.isVisible()
    return dialog


def keys(window: Window, name: str) -> list[str]:
    return [key.toString() for key in window.actions_table[name].shortcuts()]


def test_a_key_that_is_pressed_in_a_field_is_the_commands_from_then_on(
    window: Window, opened: Open, qtbot: QtBot, idle: Callable[[], None]
) -> None:
    opened("modelopt/qwen3-36layers-fp8-kvfp8")
    dialog = dialog_of(window)
    field = dialog.fields["show_plot"]
    field.clear()
    QTest.keyClick(field, Qt.Key.Key_G, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)
    assert field.keySequence() == QKeySequence("Ctrl+Shift+G")
    dialog.ok.click()
    assert keys(window, "show_plot") == ["Ctrl+Shift+G"]
    assert "Ctrl+Shift+G" in window.actions_table["show_plot"].toolTip()
    assert Settings().keys() == {"show_plot": ("Ctrl+Shift+G",)}
    QTest.keyClick(window, Qt.Key.Key_G, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)
    idle()
    assert window.workspace.plot.isVisible()
    later = Window()
    qtbot.addWidget(later)
    assert keys(later, "show_plot") == ["Ctrl+Shift+G"]
    later.close()


def test_a_key_of_another_command_is_told_and_cannot_be_kept(window: Window) -> None:
    dialog = dialog_of(window)
    dialog.fields["show_plot"].setKeySequence(QKeySequence("Ctrl+E"))
    assert dialog.clash.text() == "Ctrl+E stands for Plot, Export. Choose other keys for all but one."
    assert not dialog.ok.isEnabled()
    dialog.fields["export"].clear()
    assert not dialog.clash.isVisible()
    dialog.ok.click()
    assert (keys(window, "show_plot"), keys(window, "export")) == (["Ctrl+E"], [])


def test_cancelling_changes_nothing_and_defaults_come_back(window: Window) -> None:
    dialog = dialog_of(window)
    dialog.fields["find"].setKeySequence(QKeySequence("Ctrl+J"))
    dialog.reject()
    assert keys(window, "find") == ["Ctrl+F", "/"] or keys(window, "find") == ["/", "Ctrl+F"]
    dialog = dialog_of(window)
    dialog.fields["find"].setKeySequence(QKeySequence("Ctrl+J"))
    dialog.ok.click()
    assert keys(window, "find") == ["Ctrl+J"]
    dialog = dialog_of(window)
    dialog.findChildren(QDialogButtonBox)[0].button(QDialogButtonBox.StandardButton.RestoreDefaults).click()
    assert keys(window, "find") == ["Ctrl+J"]
    dialog.ok.click()
    assert keys(window, "find") == list(window.actions_table.spec("find").keys)
    assert Settings().keys() == {}


def test_the_banner_names_the_key_in_force(window: Window, opened: Open) -> None:
    opened("modelopt/deepseekv3-30layers-fp8-kvfp8")
    button = window.workspace.banner.next_button
    assert button.text().strip() == "Next problem  F8"
    dialog = dialog_of(window)
    dialog.fields["next_problem"].setKeySequence(QKeySequence("Ctrl+Shift+G"))
    dialog.ok.click()
    assert button.text().strip() == "Next problem  Ctrl+Shift+G"
    assert "Ctrl+Shift+G" in button.toolTip()
