"""What a run of the loader adds to the findings: a prediction that it contradicts comes before all others."""

from __future__ import annotations

from collections.abc import Sequence

from core.diagnosis.finding import Finding
from core.engines.outcome import Deliveries
from core.loading.claims import claims
from core.loading.verification import Verification
from core.naming.conventions import layer_number
from core.wording import joined, say

CONTRADICTED = "prediction-contradicted"
_SHOWN = 3


def contradiction(verification: Verification, deliveries: Deliveries) -> Finding | None:
    """The finding that the loader did not do what ``deliveries`` say it does; None where it did, or did not run.

    Its keys are the tensors of the layers and roles that differ.
    """
    wrong = verification.disagreements
    if not wrong:
        return None
    claimed = claims(deliveries)
    keys: dict[str, None] = {}
    layers: set[int] = set()
    for each in wrong:
        if each.layer_path is None:
            continue
        number = layer_number(each.layer_path)
        if number is not None:
            layers.add(number)
        of_layer = claimed.get(each.layer_path, {})
        roles = (each.role,) if each.role else tuple(of_layer)
        keys |= {of_layer[role].key: None for role in roles if role in of_layer}
    if verification.key is not None:
        keys[verification.key] = None
    shown = joined("; ", (each.text for each in wrong[:_SHOWN]))
    if len(wrong) > _SHOWN:
        shown = say("{first}; and {count:,} more", first=shown, count=len(wrong) - _SHOWN)
    steps = sorted({each.step for each in wrong if each.step})
    parted = say("They parted at: {steps}.", steps=joined(", ", steps)) if steps else ""
    prediction = say("What is said about these layers holds for the prediction alone, not for the loader.")
    return Finding(
        code=CONTRADICTED,
        severity="error",
        title=say("The loader did not do what was predicted"),
        keys=tuple(keys),
        layers=tuple(sorted(layers)),
        evidence=say("{sentence}.", sentence=shown),
        consequence=joined(" ", (prediction, parted)),
        fix=say("Trust what the layers were seen to hold, and report this with what `kvscope verify --json` prints."),
        source=say("the loader of {engine}, run on {device}", engine=verification.engine, device=verification.where),
    )


def with_observation(
    findings: Sequence[Finding], verification: Verification | None, deliveries: Deliveries
) -> tuple[Finding, ...]:
    """The findings of a prediction, and before them what the loader's run says against it."""
    found = contradiction(verification, deliveries) if verification is not None else None
    return (*((found,) if found is not None else ()), *findings)
