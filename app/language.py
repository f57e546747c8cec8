"""The language of the window: which there are, which is wanted, and the translators that speak it."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QCoreApplication, QLibraryInfo, QLocale, QTranslator

from resources import resource

SYSTEM = ""


@dataclass(frozen=True, slots=True)
class Language:
    """A language the window speaks: its code, and its own name for itself."""

    code: str
    name: str


ENGLISH = Language("en", "English")
LANGUAGES = (ENGLISH, Language("zh_CN", "简体中文"))


def chosen(wanted: str, system: QLocale | None = None) -> Language:
    """The language a setting asks for; "" follows the system, English where it speaks none of ours."""
    by_code = {language.code: language for language in LANGUAGES}
    if wanted in by_code:
        return by_code[wanted]
    locale = system if system is not None else QLocale.system()
    simplified = locale.script() is not QLocale.Script.TraditionalChineseScript
    if locale.language() is QLocale.Language.Chinese and simplified:
        return by_code["zh_CN"]
    return ENGLISH


def speak(application: QCoreApplication, wanted: str) -> Language:
    """Install the translators of the wanted language, in place of those that were there."""
    for old in application.findChildren(QTranslator):
        application.removeTranslator(old)
        old.deleteLater()
    language = chosen(wanted)
    if language is ENGLISH:
        return language
    # Qt's own texts (OK, Cancel, the file dialogs) are translated with Qt.
    files = (
        (f"qtbase_{language.code}", QLibraryInfo.path(QLibraryInfo.LibraryPath.TranslationsPath)),
        (f"kvscope_{language.code}", str(resource("translations"))),
    )
    for name, folder in files:
        translator = QTranslator(application)
        if translator.load(name, folder):
            application.installTranslator(translator)
        else:
            translator.deleteLater()
    return language
