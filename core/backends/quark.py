"""AMD Quark."""

from __future__ import annotations

from collections.abc import Iterable

from core.backends.base import AttentionKind, Backend, output_scale_mapper
from core.backends.kv_method import BaseKVCacheMethod, KVMethod
from core.naming import patterns
from core.naming.mapper import WeightsMapper
from core.quantization.declaration import Declaration, Source


class Quark(Backend):
    """Output scales of the projections are renamed too; MLA and excluded layers get no scales."""

    method = "quark"
    config_class = "QuarkConfig"
    title = "AMD Quark"
    source = "vLLM 0.33.0, layers/quantization/quark/quark.py, QuarkConfig"

    def get_cache_scale_mapper(self) -> WeightsMapper:
        return output_scale_mapper(self.source) | super().get_cache_scale_mapper()

    def kv_method(self, kind: AttentionKind, path: str, declared: Declaration) -> KVMethod | None:
        # The exclude list is asked before the kind of layer, so a pattern that covers the attention layer itself
        # (not only its projections) takes its scales away.
        source = declared.source_of("exclude")
        if kind != "Attention" or is_excluded(path, _patterns(declared), source=source):
            return None
        return BaseKVCacheMethod("QuarkKVCacheMethod")


def _patterns(declared: Declaration) -> list[str]:
    exclude = declared.config.get("exclude")
    return [pattern for pattern in exclude if isinstance(pattern, str)] if isinstance(exclude, list) else []


def is_excluded(path: str, entries: Iterable[str], *, source: Source | None = None) -> bool:
    """Whether one of Quark's exclude entries names ``path`` (vLLM 0.33.0, quark/utils.py, check_equal_or_regex_match):
    equal to it, or a regular expression after "re:".

    Raises:
        SlowPatternError: names the field at ``source``.
    """
    for entry in entries:
        if entry.startswith("re:"):
            if _is_pattern(entry[3:]) and _begins(entry[3:], path, source):
                return True
        elif entry == path:
            return True
    return False


def _begins(pattern: str, path: str, source: Source | None) -> bool:
    try:
        return patterns.begins(pattern, path)
    except patterns.SlowPatternError as error:
        if source is None:
            raise
        raise patterns.SlowPatternError(
            error.problem, path=source.file, key=source.field, remedy=error.remedy
        ) from error


def _is_pattern(text: str) -> bool:
    try:
        patterns.check_pattern(text)
    except ValueError:
        return False
    return True


BACKENDS = (Quark(),)
