from __future__ import annotations

from collections import Counter

import pytest
from PySide6.QtGui import QKeySequence
from PySide6.QtWidgets import QMenu

from app.actions import MENUS, SPECS, SUBMENUS, Needs, specs
from app.window import Window
from tests.app.conftest import Open

EXPECTED = {
    "open_file": "Ctrl+O",
    "open_folder": "Ctrl+Shift+O",
    "open_address": "Ctrl+L",
    "find": "/",
    "reload": "F5",
    "next_problem": "F8",
    "previous_problem": "Shift+F8",
    "export": "Ctrl+E",
    "verify": "Ctrl+Return",
    "copy_key": "Ctrl+C",
    "copy_row": "Ctrl+Shift+C",
    "commands": "Ctrl+Shift+P",
}


def test_no_two_actions_share_an_id_or_a_shortcut() -> None:
    assert [name for name, count in Counter(spec.id for spec in specs()).items() if count > 1] == []
    keys = Counter(QKeySequence(key).toString() for spec in specs() for key in spec.keys)
    assert [key for key, count in keys.items() if count > 1] == []
    assert "" not in keys  # a sequence that Qt does not understand


def test_no_mnemonic_twice_in_a_menu() -> None:
    for menu in MENUS:
        texts = [spec.text for spec in SPECS if spec.menu == menu and spec.text]
        texts += [MENUS[name] for name, above in SUBMENUS.items() if above == menu]
        letters = Counter(text[text.index("&") + 1].lower() for text in texts if "&" in text)
        assert [letter for letter, count in letters.items() if count > 1] == [], menu
    top = Counter(MENUS[name][MENUS[name].index("&") + 1].lower() for name in MENUS if name not in SUBMENUS)
    assert max(top.values()) == 1


def test_the_promised_shortcuts_are_there() -> None:
    by_id = {spec.id: spec for spec in specs()}
    for name, keys in EXPECTED.items():
        assert keys in by_id[name].keys, name


def test_every_action_stands_in_a_menu_and_has_a_slot(window: Window) -> None:
    def entries(menu: QMenu) -> set[str]:
        found = set()
        for action in menu.actions():
            below = action.menu()
            found |= entries(below) if isinstance(below, QMenu) else {action.objectName()}
        return found

    in_menus = {name for menu in window.menuBar().findChildren(QMenu) for name in entries(menu)}
    for spec, action in window.actions_table.all():
        assert action.text()
        assert action.toolTip()
        assert callable(getattr(window.commands, spec.id))
        assert action.objectName() == spec.id
        assert spec.id in in_menus


def test_actions_are_enabled_by_what_is_there(window: Window, opened: Open) -> None:
    table = window.actions_table
    for spec, action in table.all():
        assert action.isEnabled() is (spec.needs is Needs.NOTHING), spec.id
    opened("llmcompressor/llama-attn_fp8_tensor")
    for name in ("reload", "export", "verify", "next_problem", "find", "close"):
        assert table[name].isEnabled(), name
    assert not table["stop"].isEnabled()
    assert table["copy_key"].isEnabled()
    window.workspace.selection.clear()
    assert not table["copy_key"].isEnabled()
    window.workspace.selection.select(["model.layers.0.self_attn.q_scale"])
    assert table["copy_key"].isEnabled()
    opened("modelopt/qwen3-36layers-fp8-kvfp8")
    assert not table["next_problem"].isEnabled()


@pytest.mark.parametrize("name", [spec.id for spec in specs() if spec.needs is Needs.NOTHING])
def test_labels_are_plain(name: str) -> None:
    label = next(spec for spec in specs() if spec.id == name).label()
    assert label
    assert "&" not in label
    assert "…" not in label
