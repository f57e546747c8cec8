"""Every command of the window, as one table: menus, tool bar, shortcut help and the README's list derive from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Flag, auto
from types import MappingProxyType

from PySide6.QtCore import QCoreApplication, QObject
from PySide6.QtGui import QAction, QActionGroup, QKeySequence
from PySide6.QtWidgets import QMenu, QMenuBar

from app.text import QT_TRANSLATE_NOOP, unmarked
from app.theme.theme import theme


class Needs(Flag):
    """What must hold for an action to be of use; without it the action is disabled."""

    NOTHING = 0
    CHECKPOINT = auto()
    PROBLEMS = auto()
    SELECTION = auto()
    RUNNING = auto()
    PATH = auto()
    BACK = auto()
    FORWARD = auto()
    TABS = auto()
    UNDO = auto()
    REDO = auto()


@dataclass(frozen=True, slots=True)
class Spec:
    """One action. ``keys`` are portable key sequences, ``menu`` the menu it stands in, "" for none.

    ``choice`` names the group of exclusive, checkable actions it belongs to; "check" makes it a toggle of its own.
    """

    id: str
    menu: str
    text: str
    keys: tuple[str, ...] = ()
    icon: str = ""
    tip: str = ""
    needs: Needs = Needs.NOTHING
    choice: str = ""

    def label(self) -> str:
        """The text without its mnemonic, translated."""
        return unmarked(QCoreApplication.translate("Actions", self.text)).rstrip("…")


def _separator(menu: str) -> Spec:
    return Spec("", menu, "")


FILE, EDIT, VIEW, CHECKPOINT, ENGINE, TOOLS, HELP = "file", "edit", "view", "checkpoint", "engine", "tools", "help"
SUBMENUS = {"recent": FILE, "samples": FILE, "theme": VIEW, "engines": ENGINE, "backends": ENGINE}
MENUS = {
    FILE: QT_TRANSLATE_NOOP("Actions", "&File"),
    EDIT: QT_TRANSLATE_NOOP("Actions", "&Edit"),
    VIEW: QT_TRANSLATE_NOOP("Actions", "&View"),
    CHECKPOINT: QT_TRANSLATE_NOOP("Actions", "&Checkpoint"),
    ENGINE: QT_TRANSLATE_NOOP("Actions", "E&ngine"),
    TOOLS: QT_TRANSLATE_NOOP("Actions", "&Tools"),
    HELP: QT_TRANSLATE_NOOP("Actions", "&Help"),
    "recent": QT_TRANSLATE_NOOP("Actions", "Open &Recent"),
    "samples": QT_TRANSLATE_NOOP("Actions", "Open &Sample"),
    "theme": QT_TRANSLATE_NOOP("Actions", "&Theme"),
    "engines": QT_TRANSLATE_NOOP("Actions", "&Engine"),
    "backends": QT_TRANSLATE_NOOP("Actions", "&Backend"),
}

SPECS: tuple[Spec, ...] = (
    Spec(
        "open_file",
        FILE,
        QT_TRANSLATE_NOOP("Actions", "&Open File…"),
        ("Ctrl+O",),
        "open-file",
        QT_TRANSLATE_NOOP("Actions", "Open a safetensors or PyTorch file"),
    ),
    Spec(
        "open_folder",
        FILE,
        QT_TRANSLATE_NOOP("Actions", "Open &Folder…"),
        ("Ctrl+Shift+O",),
        "open-folder",
        QT_TRANSLATE_NOOP("Actions", "Open a checkpoint folder with all its shards"),
    ),
    Spec(
        "open_address",
        FILE,
        QT_TRANSLATE_NOOP("Actions", "Open &Address…"),
        ("Ctrl+L",),
        "open-address",
        QT_TRANSLATE_NOOP("Actions", "Open a checkpoint from a hub, web server or bucket; only headers are fetched"),
    ),
    Spec("recent", FILE, ""),
    Spec("samples", FILE, ""),
    _separator(FILE),
    Spec(
        "close",
        FILE,
        QT_TRANSLATE_NOOP("Actions", "&Close Checkpoint"),
        ("Ctrl+W",),
        "close",
        QT_TRANSLATE_NOOP("Actions", "Close the checkpoint; the last one leaves the start page"),
        Needs.PATH,
    ),
    Spec(
        "quit",
        FILE,
        QT_TRANSLATE_NOOP("Actions", "&Quit"),
        ("Ctrl+Q",),
        "quit",
        QT_TRANSLATE_NOOP("Actions", "Stop running jobs and quit"),
    ),
    Spec(
        "undo",
        EDIT,
        QT_TRANSLATE_NOOP("Actions", "&Undo Choice for Export"),
        ("Ctrl+Z",),
        "undo",
        QT_TRANSLATE_NOOP("Actions", "Take back the last repair or target chosen for the export"),
        Needs.UNDO,
    ),
    Spec(
        "redo",
        EDIT,
        QT_TRANSLATE_NOOP("Actions", "&Redo Choice for Export"),
        ("Ctrl+Shift+Z",),
        "redo",
        QT_TRANSLATE_NOOP("Actions", "Choose again what was taken back"),
        Needs.REDO,
    ),
    _separator(EDIT),
    Spec(
        "copy_key",
        EDIT,
        QT_TRANSLATE_NOOP("Actions", "&Copy Key"),
        ("Ctrl+C",),
        "copy",
        QT_TRANSLATE_NOOP("Actions", "Copy the selected keys, one a line"),
        Needs.SELECTION,
    ),
    Spec(
        "copy_row",
        EDIT,
        QT_TRANSLATE_NOOP("Actions", "Copy Row as &JSON"),
        ("Ctrl+Shift+C",),
        "braces",
        QT_TRANSLATE_NOOP("Actions", "Copy the selected rows as the report's JSON"),
        Needs.SELECTION,
    ),
    Spec(
        "copy_text",
        EDIT,
        QT_TRANSLATE_NOOP("Actions", "Copy Rows as &Text"),
        (),
        "copy",
        QT_TRANSLATE_NOOP("Actions", "Copy the selected rows with their heads, columns apart by tabs"),
        Needs.SELECTION,
    ),
    Spec(
        "copy_csv",
        EDIT,
        QT_TRANSLATE_NOOP("Actions", "Copy Rows as C&SV"),
        (),
        "copy",
        QT_TRANSLATE_NOOP("Actions", "Copy the selected rows as a table for a spreadsheet, numbers with every digit"),
        Needs.SELECTION,
    ),
    Spec(
        "copy_why",
        EDIT,
        QT_TRANSLATE_NOOP("Actions", "Copy &Why"),
        ("Ctrl+Alt+C",),
        "why",
        QT_TRANSLATE_NOOP("Actions", "Copy the current key's story as text"),
        Needs.SELECTION,
    ),
    _separator(EDIT),
    Spec(
        "find",
        EDIT,
        QT_TRANSLATE_NOOP("Actions", "&Filter Keys"),
        ("Ctrl+F", "/"),
        "filter",
        QT_TRANSLATE_NOOP("Actions", "Go to the filter line"),
        Needs.CHECKPOINT,
    ),
    Spec(
        "clear_filter",
        EDIT,
        QT_TRANSLATE_NOOP("Actions", "C&lear Filter"),
        ("Ctrl+Shift+F",),
        "cancel",
        QT_TRANSLATE_NOOP("Actions", "Show every row again"),
        Needs.CHECKPOINT,
    ),
    Spec(
        "all_tensors",
        VIEW,
        QT_TRANSLATE_NOOP("Actions", "&All Tensors"),
        ("Ctrl+T",),
        "tensors",
        QT_TRANSLATE_NOOP("Actions", "List every tensor of the checkpoint, not the scales alone"),
        Needs.CHECKPOINT,
        "check",
    ),
    Spec(
        "groups",
        VIEW,
        QT_TRANSLATE_NOOP("Actions", "&Groups"),
        ("Ctrl+G",),
        "module",
        QT_TRANSLATE_NOOP("Actions", "Show patterns, modules and shards beside the keys"),
        Needs.CHECKPOINT,
        "check",
    ),
    _separator(VIEW),
    Spec(
        "back",
        VIEW,
        QT_TRANSLATE_NOOP("Actions", "Go Bac&k"),
        ("Alt+Left",),
        "previous",
        QT_TRANSLATE_NOOP("Actions", "Select what was selected before"),
        Needs.BACK,
    ),
    Spec(
        "forward",
        VIEW,
        QT_TRANSLATE_NOOP("Actions", "Go For&ward"),
        ("Alt+Right",),
        "next",
        QT_TRANSLATE_NOOP("Actions", "Undo going back"),
        Needs.FORWARD,
    ),
    Spec(
        "next_tab",
        VIEW,
        QT_TRANSLATE_NOOP("Actions", "Next &Checkpoint"),
        ("Ctrl+PgDown", "Ctrl+Tab"),
        "",
        QT_TRANSLATE_NOOP("Actions", "Go to the checkpoint in the next tab"),
        Needs.TABS,
    ),
    Spec(
        "previous_tab",
        VIEW,
        QT_TRANSLATE_NOOP("Actions", "Pre&vious Checkpoint"),
        ("Ctrl+PgUp", "Ctrl+Shift+Tab"),
        "",
        QT_TRANSLATE_NOOP("Actions", "Go to the checkpoint in the previous tab"),
        Needs.TABS,
    ),
    _separator(VIEW),
    Spec(
        "show_problems", VIEW, QT_TRANSLATE_NOOP("Actions", "&Problems"), ("Ctrl+1",), "problems", "", Needs.CHECKPOINT
    ),
    Spec("show_engines", VIEW, QT_TRANSLATE_NOOP("Actions", "E&ngines"), ("Ctrl+2",), "engines", "", Needs.CHECKPOINT),
    Spec(
        "show_backends", VIEW, QT_TRANSLATE_NOOP("Actions", "&Backends"), ("Ctrl+3",), "backends", "", Needs.CHECKPOINT
    ),
    Spec("show_plot", VIEW, QT_TRANSLATE_NOOP("Actions", "P&lot"), ("Ctrl+4",), "plot", "", Needs.CHECKPOINT),
    Spec(
        "show_export",
        VIEW,
        QT_TRANSLATE_NOOP("Actions", "E&xport Preview"),
        ("Ctrl+5",),
        "export",
        "",
        Needs.CHECKPOINT,
    ),
    Spec("show_gpu", VIEW, QT_TRANSLATE_NOOP("Actions", "GP&U"), ("Ctrl+6",), "gpu", "", Needs.CHECKPOINT),
    Spec(
        "show_config",
        VIEW,
        QT_TRANSLATE_NOOP("Actions", "Con&fig"),
        ("Ctrl+7",),
        "config",
        QT_TRANSLATE_NOOP("Actions", "The config files, with the fields that decided something"),
        Needs.CHECKPOINT,
    ),
    Spec("show_log", VIEW, QT_TRANSLATE_NOOP("Actions", "L&og"), ("Ctrl+8",), "log", "", Needs.CHECKPOINT),
    _separator(VIEW),
    Spec("theme", VIEW, ""),
    Spec("theme_system", "theme", QT_TRANSLATE_NOOP("Actions", "Follow the &System"), choice="theme"),
    Spec("theme_light", "theme", QT_TRANSLATE_NOOP("Actions", "&Light"), choice="theme"),
    Spec("theme_dark", "theme", QT_TRANSLATE_NOOP("Actions", "&Dark"), choice="theme"),
    Spec(
        "toggle_theme",
        VIEW,
        QT_TRANSLATE_NOOP("Actions", "Light or &Dark"),
        ("Ctrl+Shift+D",),
        "theme",
        QT_TRANSLATE_NOOP("Actions", "Switch between the light and the dark theme"),
    ),
    Spec(
        "reload",
        CHECKPOINT,
        QT_TRANSLATE_NOOP("Actions", "&Reload"),
        ("F5",),
        "reload",
        QT_TRANSLATE_NOOP("Actions", "Read the checkpoint again from disk"),
        Needs.PATH,
    ),
    Spec(
        "stop",
        CHECKPOINT,
        QT_TRANSLATE_NOOP("Actions", "S&top Jobs"),
        ("Ctrl+.",),
        "cancel",
        QT_TRANSLATE_NOOP("Actions", "Cancel whatever is running"),
        Needs.RUNNING,
    ),
    _separator(CHECKPOINT),
    Spec(
        "next_problem",
        CHECKPOINT,
        QT_TRANSLATE_NOOP("Actions", "&Next Problem"),
        ("F8",),
        "next",
        QT_TRANSLATE_NOOP("Actions", "Go to the next row that a problem concerns"),
        Needs.PROBLEMS,
    ),
    Spec(
        "previous_problem",
        CHECKPOINT,
        QT_TRANSLATE_NOOP("Actions", "&Previous Problem"),
        ("Shift+F8",),
        "previous",
        QT_TRANSLATE_NOOP("Actions", "Go to the row before that a problem concerns"),
        Needs.PROBLEMS,
    ),
    _separator(CHECKPOINT),
    Spec(
        "export",
        CHECKPOINT,
        QT_TRANSLATE_NOOP("Actions", "&Export…"),
        ("Ctrl+E",),
        "export",
        QT_TRANSLATE_NOOP("Actions", "Preview a normalized copy of the checkpoint, then write it"),
        Needs.CHECKPOINT,
    ),
    Spec(
        "compare",
        CHECKPOINT,
        QT_TRANSLATE_NOOP("Actions", "Co&mpare"),
        ("Ctrl+D",),
        "compare",
        QT_TRANSLATE_NOOP("Actions", "Compare the scales with another checkpoint's"),
        Needs.CHECKPOINT,
    ),
    Spec(
        "copy_command",
        CHECKPOINT,
        QT_TRANSLATE_NOOP("Actions", "Copy S&hell Command"),
        (),
        "commands",
        QT_TRANSLATE_NOOP("Actions", "Copy the command line that says what the window shows"),
        Needs.PATH,
    ),
    Spec(
        "copy_report",
        CHECKPOINT,
        QT_TRANSLATE_NOOP("Actions", "&Copy Report as JSON"),
        (),
        "braces",
        QT_TRANSLATE_NOOP("Actions", "Copy the whole report, as the command line prints it"),
        Needs.CHECKPOINT,
    ),
    Spec(
        "save_report",
        CHECKPOINT,
        QT_TRANSLATE_NOOP("Actions", "&Save Report…"),
        ("Ctrl+S",),
        "save",
        QT_TRANSLATE_NOOP("Actions", "Save the report as one HTML file, JSON or text, to attach to an issue"),
        Needs.CHECKPOINT,
    ),
    Spec(
        "verify",
        ENGINE,
        QT_TRANSLATE_NOOP("Actions", "&Verify on GPU"),
        ("Ctrl+Return",),
        "gpu",
        QT_TRANSLATE_NOOP("Actions", "Run the real loader and compare what each layer holds with the prediction"),
        Needs.CHECKPOINT,
    ),
    _separator(ENGINE),
    Spec("engines", ENGINE, ""),
    Spec("backends", ENGINE, ""),
    Spec(
        "reset_choices",
        ENGINE,
        QT_TRANSLATE_NOOP("Actions", "Back to &Detected Values"),
        (),
        "reload",
        QT_TRANSLATE_NOOP("Actions", "Let engine, backend, architecture and dtypes follow the checkpoint again"),
        Needs.CHECKPOINT,
    ),
    Spec(
        "commands",
        TOOLS,
        QT_TRANSLATE_NOOP("Actions", "&Commands…"),
        ("Ctrl+Shift+P",),
        "commands",
        QT_TRANSLATE_NOOP("Actions", "Find any command by typing a part of its name"),
    ),
    Spec(
        "rules",
        TOOLS,
        QT_TRANSLATE_NOOP("Actions", "Renaming R&ules…"),
        ("Ctrl+R",),
        "write",
        QT_TRANSLATE_NOOP("Actions", "Write an out-of-tree backend's rules and see at once what they make of the keys"),
        Needs.CHECKPOINT,
    ),
    Spec(
        "settings",
        TOOLS,
        QT_TRANSLATE_NOOP("Actions", "&Settings…"),
        ("Ctrl+,",),
        "settings",
        QT_TRANSLATE_NOOP("Actions", "Theme, language, the engine to begin with, and the limits of the rules"),
    ),
    Spec("clear_recent", TOOLS, QT_TRANSLATE_NOOP("Actions", "Forget &Recent Checkpoints"), (), "trash"),
    Spec("shortcuts", HELP, QT_TRANSLATE_NOOP("Actions", "&Keyboard Shortcuts"), ("F1",), "keyboard"),
    Spec("about", HELP, QT_TRANSLATE_NOOP("Actions", "&About KVScope"), (), "info"),
)


def specs() -> Iterator[Spec]:
    """The real actions, without separators and submenus."""
    return (spec for spec in SPECS if spec.text)


class Actions(QObject):
    """The table's QActions; each calls the slot ``_on_<id>`` of the window it belongs to. ``chosen`` are the keys that
    the user gave some of them.
    """

    def __init__(
        self,
        parent: QObject,
        handler: Callable[[str], Callable[[], None]],
        chosen: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    ) -> None:
        super().__init__(parent)
        self._actions: dict[str, QAction] = {}
        self._specs = {spec.id: spec for spec in specs()}
        self._groups: dict[str, QActionGroup] = {}
        for spec in specs():
            action = QAction(QCoreApplication.translate("Actions", spec.text), parent)
            action.setObjectName(spec.id)
            action.setStatusTip(QCoreApplication.translate("Actions", spec.tip) if spec.tip else spec.label())
            action.setIconVisibleInMenu(True)
            if spec.choice:
                action.setCheckable(True)
            if spec.choice and spec.choice != "check":
                group = self._groups.setdefault(spec.choice, QActionGroup(parent))
                group.addAction(action)
            action.triggered.connect(handler(spec.id))
            self._actions[spec.id] = action
            self.set_keys(spec.id, chosen.get(spec.id, spec.keys))
        self._drawn = False
        theme().changed.connect(self._on_theme_changed)

    def __getitem__(self, name: str) -> QAction:
        return self._actions[name]

    def set_keys(self, name: str, keys: Iterable[str]) -> None:
        """Give an action other keys, as portable sequences; its tool tip tells the first."""
        action, sequences = self._actions[name], [QKeySequence(each) for each in keys]
        action.setShortcuts(sequences)
        native = sequences[0].toString(QKeySequence.SequenceFormat.NativeText) if sequences else ""
        tip = action.statusTip()
        action.setToolTip(f"{tip} ({native})" if native else tip)

    def spec(self, name: str) -> Spec:
        return self._specs[name]

    def all(self) -> Iterable[tuple[Spec, QAction]]:
        return tuple((self._specs[name], action) for name, action in self._actions.items())

    def draw_icons(self) -> None:
        """Draw the icons, when they are first about to be seen: the first window is shown without that work."""
        if self._drawn:
            return
        self._drawn = True
        for name, action in self._actions.items():
            if self._specs[name].icon:
                action.setIcon(theme().icon(self._specs[name].icon))

    def _on_theme_changed(self) -> None:
        if self._drawn:
            self._drawn = False
            self.draw_icons()

    def enable(self, given: Needs) -> None:
        """Enable what can work with what is ``given``, disable the rest."""
        for name, action in self._actions.items():
            needs = self._specs[name].needs
            action.setEnabled(needs & given == needs)

    def fill(self, bar: QMenuBar) -> dict[str, QMenu]:
        """Build the menu bar; returns the menus by id, the dynamic submenus among them."""
        menus: dict[str, QMenu] = {}
        for name, text in MENUS.items():
            title = QCoreApplication.translate("Actions", text)
            if name not in SUBMENUS:
                menus[name] = bar.addMenu(title)
                menus[name].aboutToShow.connect(self.draw_icons)
            else:
                menus[name] = QMenu(title, bar)
                menus[name].setToolTipsVisible(True)
        for spec in SPECS:
            menu = menus[spec.menu]
            if spec.id in SUBMENUS and not spec.text:
                menu.addMenu(menus[spec.id])
            elif not spec.text:
                menu.addSeparator()
            else:
                menu.addAction(self._actions[spec.id])
        return menus
