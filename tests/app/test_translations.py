"""Every text of the window speaks Chinese too, and the compiled catalogue is the one of the sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Formatter

import pytest
from PySide6.QtCore import QCoreApplication, QTranslator
from PySide6.QtWidgets import QApplication, QMessageBox
from pytestqt.qtbot import QtBot

from app import translations
from app.language import speak
from app.text import CORE
from app.window import Window
from app.workspace import TABS
from core.diagnosis import RULES
from resources import resource
from tests.app.conftest import Open

GEMMA = "quark/gemma3-26layers-fp8-kvfp8"
Idle = Callable[[], None]
TS = resource("translations", "kvscope_zh_CN.ts")


def test_no_text_lacks_its_translation() -> None:
    known = translations.read(TS)
    wanted = translations.texts()
    assert [text for text in wanted if not known.get(text)] == []
    assert sorted(set(known) - set(wanted)) == []  # nor is there one of a text that is gone: make translations
    assert len(wanted) > 600
    core = {source for context, source in wanted if context == CORE}
    assert core >= {text for rule in RULES for text in (rule.title, rule.meaning)}
    assert len(core) > 500


_IN_A_TERMINAL = {"cli", "commands", "display", "many", "planning", "screenshots", "translations", "writing"}
_TRANSLATED = {"QT_TRANSLATE_NOOP", "tr", "translate", "say"}
_FOR_DEVELOPERS = {"RuntimeError", "TypeError"}
_SENTENCE = re.compile(r"[a-z]{2,} [a-z]{2,} [a-z]+", re.IGNORECASE)


def _sentences(source: str) -> Iterator[str]:
    """Texts of three words or more that are handed to nobody who could translate them."""

    def below(node: ast.AST) -> Iterator[str]:
        match node:
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) if name in _TRANSLATED | _FOR_DEVELOPERS:
                return
            case ast.Expr(value=ast.Constant()):  # a docstring
                return
            case ast.JoinedStr(values=parts):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "_" for part in parts)
                yield from below(ast.Constant(text))
                yield from (text for part in parts if isinstance(part, ast.FormattedValue) for text in below(part))
                return
            case ast.Constant(value=str(text)) if _SENTENCE.search(text):
                yield text
        for child in ast.iter_child_nodes(node):
            yield from below(child)

    yield from below(ast.parse(source))


def test_no_sentence_of_the_window_is_kept_from_translation() -> None:
    app = Path(translations.__file__).parent
    modules = [path for path in app.rglob("*.py") if path.stem not in _IN_A_TERMINAL]
    assert len(modules) > 60
    kept = {path.name: found for path in modules if (found := [*_sentences(path.read_text(encoding="utf-8"))])}
    kept.pop("style.py")
    assert kept.pop("gpu.py") == ["read back parameters"]  # as wide as its column is
    assert kept == {}
    source = "a = self.tr('not seen here') + f'but {this} is seen now'; b = 'and so is this'"
    assert [*_sentences(source)] == ["but _ is seen now", "and so is this"]


def test_the_compiled_catalogue_is_up_to_date(qapp: QApplication) -> None:
    translator = QTranslator()
    assert translator.load("kvscope_zh_CN", str(TS.parent))
    different = [
        (context, source)
        for (context, source), wanted in translations.read(TS).items()
        if translator.translate(context, source) != wanted
    ]
    assert different == []


def test_translations_keep_what_the_program_fills_in() -> None:
    def fields(text: str) -> set[str]:
        return {name for _, name, _, _ in Formatter().parse(text) if name is not None}

    for (context, source), translated in translations.read(TS).items():
        if not translated:
            continue  # told by the test above
        assert {field for field in fields(source) if not field.startswith("_")} <= fields(translated), (context, source)
        assert fields(translated) <= fields(source), (context, source)
        assert source.endswith("…") == translated.endswith("…"), (context, source)
        if re.search(r"&\w", source):
            assert len(re.findall(r"&\w", translated)) == 1, (context, source)


def test_mnemonics_stay_apart_in_each_menu(qapp: QApplication) -> None:
    from app.actions import MENUS, SPECS, SUBMENUS

    known = translations.read(TS)
    for menu in MENUS:
        texts = [spec.text for spec in SPECS if spec.menu == menu and spec.text]
        texts += [MENUS[name] for name, above in SUBMENUS.items() if above == menu]
        letters = [match[1] for text in texts if (match := re.search(r"&(\w)", known["Actions", text])) is not None]
        assert len(letters) == len(set(letters)), menu


def test_a_text_that_no_tool_finds_is_told(tmp_path: Path) -> None:
    source = tmp_path / "broken.py"
    source.write_text("class A:\n    def f(self, words):\n        return self.tr(words)\n")
    with pytest.raises(translations.UntranslatableError, match=r"broken\.py:3"):
        list(translations._texts_of(source))


def test_new_texts_are_added_as_unfinished_and_old_ones_kept(tmp_path: Path) -> None:
    path = tmp_path / "kvscope_zh_CN.ts"
    known = translations.read(TS)
    gone = next(iter(known))
    translations.write(path, "zh_CN", {text: words for text, words in known.items() if text != gone})
    again = translations.read(path)
    assert again[gone] == ""
    assert {text: words for text, words in again.items() if text != gone} == {
        text: words for text, words in known.items() if text != gone
    }


@pytest.fixture
def chinese(qapp: QApplication) -> Iterator[None]:
    speak(qapp, "zh_CN")
    yield
    speak(qapp, "en")
    for translator in qapp.findChildren(QTranslator):
        QCoreApplication.removeTranslator(translator)


def test_the_window_speaks_chinese(chinese: None, window: Window, opened: Open, idle: Idle) -> None:
    opened(GEMMA)
    workspace = window.workspace
    assert workspace.banner.word == "失败"
    assert [workspace.tabs.tabText(place) for place in range(1, len(TABS))] == [
        "引擎",
        "后端",
        "图表",
        "比较",
        "导出预览",
        "GPU",
        "配置",
        "日志",
    ]
    assert workspace.problems.table.index(0, 1).data() == "引擎在加载时停止"
    menus = [action.text() for action in window.menuBar().actions()]
    assert menus == ["文件(&F)", "编辑(&E)", "视图(&V)", "检查点(&C)", "引擎(&N)", "工具(&T)", "帮助(&H)"]
    box = QMessageBox(QMessageBox.Icon.NoIcon, "", "", QMessageBox.StandardButton.Cancel)
    assert "取消" in box.button(QMessageBox.StandardButton.Cancel).text()  # Qt's own texts
    box.deleteLater()


def test_every_panel_shows_no_english_of_its_own(
    chinese: None, window: Window, opened: Open, idle: Idle, qtbot: QtBot
) -> None:
    from PySide6.QtWidgets import QAbstractButton, QComboBox, QLabel, QLineEdit

    opened(GEMMA)
    for name in TABS:
        window.workspace.show_tab(name)
        idle()
    shown: set[str] = set()
    shown |= {label.text() for label in window.findChildren(QLabel)}
    shown |= {button.text() for button in window.findChildren(QAbstractButton)}
    for box in window.findChildren(QComboBox):
        shown.add(box.accessibleName())
    shown |= {line.placeholderText() for line in window.findChildren(QLineEdit)}
    english = {source for _, source in translations.texts() if re.search(r"[a-z]{4}", source)}
    same = {source for (_, source), words in translations.read(TS).items() if source == words}
    assert {text.strip() for text in shown} & (english - same) == set()
