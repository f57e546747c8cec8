"""The top bar: open and reload, what the prediction assumes and where that came from, verify and export."""

from __future__ import annotations

from dataclasses import replace

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QMenu, QSizePolicy, QToolButton, QWidget

from app.actions import Actions
from app.digest import Digest
from app.panels.layouts import horizontal
from app.panels.parts import Button
from app.panels.pickers import Picker
from app.session import Session
from app.text import spoken
from app.theme.theme import theme
from core.engines import DEFAULT_ENGINE, ENGINES, EngineProfile, get_engine
from core.engines.installed import Installed
from core.engines.variants import cache_dtypes_of, methods_of
from core.errors import KVScopeError
from core.installation import names_of
from core.settings import Choice, Origin

_DTYPES = ("bfloat16", "float16", "float32")


class Header(QWidget):
    """Five pickers that set the session's choices and follow its inspection."""

    def __init__(self, session: Session, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.engine = Picker(self.tr("Engine"), "TensorRT-LLM 1.2.3")
        self.method = Picker(self.tr("Backend"), "Auto: compressed-tensors")
        self.architecture = Picker(self.tr("Architecture"), "Auto: Qwen3MoeForCausalLM")
        self.kv_cache_dtype = Picker(self.tr("KV cache dtype"), "Auto: auto → fp8_e4m3")
        self.dtype = Picker(self.tr("Model dtype"), "Auto: bfloat16")
        self.open_button = _raised(self.tr("Open"))
        self.open_button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.open_button.setPopupMode(QToolButton.ToolButtonPopupMode.MenuButtonPopup)
        self.open_button.setText(" " + self.tr("Open"))
        self.open_button.setToolTip(actions["open_folder"].toolTip())
        self.open_button.clicked.connect(actions["open_folder"].trigger)
        self.reload_button = _raised(self.tr("Reload"))
        self.reload_button.setDefaultAction(actions["reload"])
        self.reload_button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonIconOnly)
        self.verify_button = Button(self.tr("Verify on GPU"), "gpu", tip=actions["verify"].toolTip())
        self.verify_button.clicked.connect(actions["verify"].trigger)
        self.export_button = Button(self.tr("Export…"), "export", tip=actions["export"].toolTip())
        self.export_button.clicked.connect(actions["export"].trigger)

        left = horizontal(self.open_button, self.reload_button, spacing=4)
        right = horizontal(self.verify_button, self.export_button, spacing=4)
        row = horizontal(left, *self._pickers(), 1, right, parent=self, margins=(12, 7, 12, 8), spacing=10)
        for inner in (left, right):
            row.setAlignment(inner, Qt.AlignmentFlag.AlignBottom)
        # Far more than the stretch beside them: that takes what is left when all have their most.
        for picker, stretch in zip(self._pickers(), (40, 60, 60, 50, 50), strict=True):
            row.setStretchFactor(picker, stretch)
        self.engine.picked.connect(self._on_engine_picked)
        self.method.picked.connect(self._on_method_picked)
        self.architecture.picked.connect(self._on_architecture_picked)
        self.kv_cache_dtype.picked.connect(self._on_kv_cache_dtype_picked)
        self.dtype.picked.connect(self._on_dtype_picked)
        session.choices_changed.connect(self.refresh)
        session.choice_failed.connect(self._on_choice_failed)
        theme().changed.connect(self._draw_icon)
        self._draw_icon()
        self.refresh()

    def set_open_menu(self, menu: QMenu) -> None:
        """What the arrow beside Open offers."""
        self.open_button.setMenu(menu)

    def show_digest(self, digest: Digest | None) -> None:
        for button in (self.verify_button, self.export_button):
            button.setEnabled(digest is not None)
        self.refresh()

    def refresh(self) -> None:
        """Show each value in force, and where it came from."""
        inspection, choices = self._session.inspection, self._session.choices
        self.engine.offer([(engine.id, engine.title) for engine in ENGINES.values()], automatic=False)
        self._offer(get_engine(choices.engine or DEFAULT_ENGINE))
        if inspection is None:
            engine = choices.engine
            self.engine.show_choice(Choice(engine or DEFAULT_ENGINE, "chosen" if engine else "default"))
            for picker in self._pickers()[1:]:
                picker.show_nothing()
            return
        settings = inspection.settings
        profile = get_engine(str(settings.engine.value))
        details = [spoken(profile.how_checked)]
        if isinstance(profile, Installed):
            details += map(spoken, names_of(profile.differences))
        # The core is always told an engine; whether the user chose it is known here.
        origin: Origin = "chosen" if choices.engine else "default"
        self.engine.show_choice(replace(settings.engine, origin=origin, detail="\n".join(details)))
        by_cache = self.tr("{engine} decides by the KV-cache dtype alone").format(engine=profile.title)
        self.method.show_choice(settings.method if methods_of(profile) else replace(settings.method, detail=by_cache))
        self.architecture.show_choice(settings.architecture)
        self.kv_cache_dtype.show_choice(settings.kv_cache_dtype, becomes=settings.kv_cache_dtype_resolved)
        self.dtype.show_choice(settings.dtype)

    def _pickers(self) -> tuple[Picker, ...]:
        return self.engine, self.method, self.architecture, self.kv_cache_dtype, self.dtype

    def _offer(self, engine: EngineProfile) -> None:
        """What can be chosen in this engine."""
        self.method.offer([(method, method) for method in methods_of(engine)])
        self.architecture.offer([(name, name) for name in engine.known_architectures()])
        self.kv_cache_dtype.offer([(dtype, dtype) for dtype in cache_dtypes_of(engine) if dtype != "auto"])
        self.dtype.offer([(dtype, dtype) for dtype in _DTYPES])

    def _draw_icon(self) -> None:
        self.open_button.setIcon(theme().icon("open-folder"))

    def _on_choice_failed(self, _error: KVScopeError) -> None:
        self.refresh()

    def _on_engine_picked(self, value: str) -> None:
        self._session.choose(self._session.choices.with_engine(value))

    def _on_method_picked(self, value: str) -> None:
        self._session.choose(replace(self._session.choices, method=value or None))

    def _on_architecture_picked(self, value: str) -> None:
        self._session.choose(replace(self._session.choices, architecture=value or None))

    def _on_kv_cache_dtype_picked(self, value: str) -> None:
        self._session.choose(replace(self._session.choices, kv_cache_dtype=value or None))

    def _on_dtype_picked(self, value: str) -> None:
        self._session.choose(replace(self._session.choices, dtype=value or None))


def _raised(name: str) -> QToolButton:
    button = QToolButton()
    button.setObjectName("raised")
    button.setAccessibleName(name)
    button.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
    return button
