"""What the loader builds: the set-up of an inspection's prediction, for the engines whose loader runs here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.engines import get_engine
from core.engines.vllm.engine import Vllm
from core.engines.vllm.predict import Setup
from core.errors import UsageError

if TYPE_CHECKING:
    from core.inspection import Inspection


def setup_for(inspection: Inspection) -> Setup | None:
    """The model, backend and cache that the inspection's prediction ran on; None for an unknown architecture.

    Raises:
        UsageError: the inspection's engine has no loader here.
    """
    engine = get_engine(str(inspection.settings.engine.value))
    if not isinstance(engine, Vllm) or not engine.verifiable:
        raise UsageError(
            f"the loader that KVScope runs is vLLM 0.33.0's, not {engine.title}'s",
            remedy="Verify with `--engine vllm-0.33.0`",
        )
    return engine.setup(inspection.declaration, inspection.settings, inspection.tensors, inspection.wish)
