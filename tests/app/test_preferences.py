"""The settings dialog, what it keeps, and what can be copied into a report."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import QLocale
from PySide6.QtGui import QGuiApplication

from app.cli import main
from app.dialogs import About
from app.language import chosen
from app.preferences import Preferences
from app.session import Choices
from app.settings import Settings
from app.shell import check_command
from app.theme.theme import theme
from app.window import Window
from core.diagnosis import Thresholds
from tests.app.conftest import Open

QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
Idle = Callable[[], None]


def preferences(window: Window) -> Preferences:
    window.actions_table["settings"].trigger()
    dialog = window.findChildren(Preferences)[-1]
    assert dialog.isVisible()
    return dialog


def codes(window: Window) -> set[str]:
    assert window.session.inspection is not None
    return {finding.code for finding in window.session.inspection.findings}


def test_settings_take_effect_and_are_kept(window: Window, opened: Open, idle: Idle, samples: Path) -> None:
    opened(QWEN)
    assert "large" not in codes(window)
    dialog = preferences(window)
    dialog.theme.setCurrentIndex(dialog.theme.findData("dark"))
    dialog.language.setCurrentIndex(dialog.language.findData("zh_CN"))
    dialog.engine.setCurrentIndex(dialog.engine.findData("sglang-0.5.23"))
    dialog.restore.setChecked(False)
    dialog.limits["notable"].setText("0.001")
    dialog.limits["large"].setText("0.002")
    dialog._on_accepted()
    idle()
    assert theme().colours.dark
    settings = Settings()
    assert (settings.text("theme"), settings.text("language")) == ("dark", "zh_CN")
    assert settings.text("restore") == "no"
    assert settings.thresholds() == Thresholds(notable=0.001, large=0.002)
    assert "large" in codes(window)
    window.actions_table["close"].trigger()
    window.open_path(str(samples / QWEN))
    idle()
    assert window.session.choices.engine in ("sglang-0.5.23", None)
    again = preferences(window)
    assert again.limits["notable"].text() == "0.001"
    again.defaults_button.click()
    again._on_accepted()
    idle()
    assert Settings().thresholds() is None
    assert "large" not in codes(window)


def test_a_new_checkpoint_begins_with_the_engine_of_the_settings(window: Window, idle: Idle, samples: Path) -> None:
    window.settings.set_text("engine", "sglang-0.5.23")
    window.open_path(str(samples / QWEN))
    idle()
    assert window.session.choices.engine == "sglang-0.5.23"
    window.settings.set_text("engine", "no-such-engine")
    window.actions_table["close"].trigger()
    window.session.choose(Choices())
    window.open_path(str(samples / QWEN))
    idle()
    assert window.session.choices.engine is None


def test_a_damaged_setting_is_the_default(window: Window) -> None:
    window.settings.set_text("thresholds/notable", "much")
    window.settings.set_text("thresholds/large", "-1")
    assert window.settings.thresholds() is None


@pytest.mark.parametrize(
    ("wanted", "system", "language"),
    [
        ("", "zh_CN", "zh_CN"),
        ("", "zh_TW", "en"),
        ("", "de_DE", "en"),
        ("en", "zh_CN", "en"),
        ("zh_CN", "de_DE", "zh_CN"),
        ("tlh", "en_US", "en"),
    ],
)
def test_the_language_is_the_chosen_one_else_the_systems(wanted: str, system: str, language: str) -> None:
    assert chosen(wanted, QLocale(system)).code == language


def test_the_command_repeats_what_the_window_shows(window: Window, opened: Open, idle: Idle, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.symlink_to((Path(__file__).parents[2] / "resources" / "samples" / QWEN).resolve())
    opened(str(folder))
    window.workspace.header.kv_cache_dtype.pick("fp8")
    idle()
    window.actions_table["copy_command"].trigger()
    command = QGuiApplication.clipboard().text()
    assert command == f"kvscope check '{folder}' --kv-cache-dtype fp8"
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *command.split("'")[0].split()[1:], str(folder), "--kv-cache-dtype", "fp8"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert window.session.inspection is not None
    assert window.session.inspection.verdict.text in " ".join(done.stdout.split())


def test_every_choice_is_in_the_command() -> None:
    choices = Choices(
        engine="sglang-0.5.23",
        method="fp8",
        architecture="A",
        kv_cache_dtype="fp8",
        dtype="float16",
        rules_file="r.toml",
    )
    assert check_command("/m", choices) == (
        "kvscope check /m --engine sglang-0.5.23 --method fp8 --architecture A --kv-cache-dtype fp8 --dtype float16 "
        "--rules r.toml"
    )


def test_limits_that_were_changed_are_in_the_command_and_judge_alike(
    window: Window, opened: Open, idle: Callable[[], None], samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened("modelopt/qwen3-36layers-fp8-kvfp8")
    window.session.set_thresholds(Thresholds(large=0.00123456789))
    idle()
    window.actions_table["copy_command"].trigger()
    command = QGuiApplication.clipboard().text().split()
    assert command[-2:] == ["--limit", "large=0.00123456789"]
    assert main(command[1:]) == 1
    assert window.session.inspection is not None
    assert window.session.inspection.verdict.text in " ".join(capsys.readouterr().out.split())
    assert main(["check", "--recursive", str(samples / "modelopt"), *command[-2:]]) == 1
    assert "doubtful" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("larg=2", "there is no limit 'larg'. Name one of absurd, vanishing, tiny, large,"),
        ("large=much", "'large=much' gives the limit no number. Write large=1.0"),
        ("swapped_layers", "'swapped_layers' gives the limit no number. Write swapped_layers=8"),
    ],
)
def test_a_limit_that_is_none_is_told(limit: str, told: str, samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(samples / "modelopt/qwen3-36layers-fp8-kvfp8"), "--limit", limit]) == 2
    assert told in capsys.readouterr().err


def test_about_names_the_versions_and_copies_them(window: Window) -> None:
    window.actions_table["about"].trigger()
    dialog = window.findChild(About)
    assert dialog is not None
    dialog.copy_button.click()
    lines = QGuiApplication.clipboard().text().splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["KVScope", "Python", "Qt", "PySide6-Essentials", "numpy"]
    assert all(len(line.split()) >= 2 for line in lines)
    dialog.close()


def test_limits_keep_their_digits(window: Window) -> None:
    limits = Thresholds(large=0.00123456789, notable=1e-05)
    window.settings.set_thresholds(limits)
    dialog = preferences(window)
    dialog.ok_button.click()
    assert window.settings.thresholds() == limits
    dialog = preferences(window)
    dialog.defaults_button.click()
    dialog.ok_button.click()
    assert window.settings.thresholds() is None


@pytest.mark.parametrize(
    ("name", "typed"),
    [("large", "1e"), ("large", "0"), ("large", ""), ("large", "inf"), ("swapped_layers", "0.5")],
)
def test_what_cannot_be_a_limit_is_marked_and_not_taken(window: Window, name: str, typed: str) -> None:
    dialog = preferences(window)
    field = dialog.limits[name]
    field.setText(typed)
    assert field.property("invalid") is True
    assert not dialog.ok_button.isEnabled()
    field.setText("3")
    assert field.property("invalid") is False
    assert dialog.ok_button.isEnabled()
    dialog.close()
