"""What the loader builds: the set-up of an inspection's prediction, for the engines whose loader runs here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.engines import DEFAULT_ENGINE, ENGINES, get_engine
from core.engines.vllm.engine import Vllm
from core.engines.vllm.predict import Setup
from core.engines.vllm.releases import NEWEST
from core.errors import UsageError
from core.quantization.declaration import Declaration
from core.quantization.older import as_read_by
from core.wording import joined, say

if TYPE_CHECKING:
    from core.inspection import Inspection


def setup_for(inspection: Inspection) -> Setup | None:
    """The model, backend and cache that the inspection's prediction ran on; None for an unknown architecture.

    Raises:
        UsageError: the inspection's engine has no loader here.
    """
    engine = get_engine(str(inspection.settings.engine.value))
    if not isinstance(engine, Vllm) or not engine.verifiable:
        known = [each.title for each in ENGINES.values() if each.verifiable]
        raise UsageError(
            say(
                "the loader that KVScope runs is that of {known}, not {engine}'s",
                known=joined(", ", known),
                engine=engine.title,
            ),
            remedy=say("Verify with `--engine {engine}`", engine=DEFAULT_ENGINE),
        )
    declared = declaration_for(engine, inspection.declaration)
    names = inspection.checkpoint.catalog.names
    return engine.setup(declared, inspection.settings, inspection.tensors, inspection.wish, names, inspection.leftovers)


def declaration_for(engine: Vllm, declaration: Declaration) -> Declaration:
    """The declaration as that version reads it; it was made as the newest does."""
    if engine.release is NEWEST:
        return declaration
    return as_read_by(declaration, engine.release.number, engine.release.backends)
