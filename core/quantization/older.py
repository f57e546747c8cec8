"""What an older vLLM reads from the same config files, where it differs from vLLM 0.33.0."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial

from core.quantization.declaration import Declaration
from core.quantization.fault import Version
from core.quantization.method import resolve_method


def as_read_by(declaration: Declaration, version: Version, methods: Collection[str]) -> Declaration:
    """The declaration with the quantization dict, the method and the error that version makes of it.

    ``version`` is (major, minor), ``methods`` are the methods it knows. A declaration that 0.33.0 refuses for another
    reason than its method stays as it is.
    """
    source = declaration.config_source
    if source is None:
        return declaration
    resolve = partial(
        resolve_method,
        declaration.declared,
        model_type=declaration.model_type,
        architectures=declaration.architectures,
        platform=declaration.platform,
        key=source.field.rsplit(".", 1)[-1],
    )
    now, then = resolve(), resolve(version=version, methods=methods)
    if (now.method, now.error) != (declaration.method, declaration.config_error) or then == now:
        return declaration
    return replace(declaration, config=then.config, method=then.method, config_error=then.error)
