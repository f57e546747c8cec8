"""Which names bring each scale to its attention layer: candidates, proven by the engine's own prediction.

No table says which architecture takes which spelling. A scale's candidates are put to the prediction, and only those
that end at the right parameter of the right layer count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from core.engines import Fed
from core.engines.outcome import AttentionLayer, Delivery
from core.errors import UsageError
from core.export.modules import modules_with_weights
from core.inspection import Inspection, predict_tensors
from core.naming.conventions import recognise, without_numbers
from core.naming.scales import KVScale, Role
from core.wording import joined, say

AS_IS = "as-is"
_SIDES = frozenset({"encoder", "decoder"})


@dataclass(frozen=True, slots=True)
class Spelling:
    """A convention's names as templates over ``{module}`` and ``{role}``: of scales (k, v, q), of the scale of the
    attention probabilities, and of zero points; "" where the convention has none.

    ``single`` is the shape in which the convention stores one number, None where ``[]`` and ``[1]`` are alike;
    ``several`` says whether it has scales per head. Types stay as they are stored: every convention is read in any.
    """

    id: str
    scale: str
    prob: str = ""
    zero_point: str = ""
    single: tuple[int, ...] | None = None
    several: bool = True

    def spell(self, scale: KVScale, role: Role) -> str | None:
        """The name of ``scale`` in its part for ``role``, None where the convention has no name for it."""
        templates = {"scale": self.prob if role == "prob" else self.scale, "zero_point": self.zero_point}
        template = templates.get(scale.kind, "")
        return template.format(module=scale.module, role=role) if template else None


SPELLINGS = (
    Spelling("portable", "{module}.{role}_scale", "{module}.prob_scale", "{module}.{role}_zero_point"),
    Spelling("modelopt", "{module}.{role}_proj.{role}_scale", single=(), several=False),
    Spelling(
        "vllm-runtime",
        "{module}.attn.{role}_scale",
        "{module}.attn.prob_scale",
        "{module}.attn.{role}_zero_point",
        single=(),
    ),
    Spelling(
        "quark",
        "{module}.{role}_proj.output_scale",
        "{module}.prob_output_scale",
        "{module}.{role}_proj.output_zero_point",
        single=(),
        several=False,
    ),
)
"""In the order in which they are tried: the ones that most engines and versions understand stand first."""

CONVENTIONS = (
    *SPELLINGS[:2],
    Spelling("compressed-tensors", "{module}.{role}_scale", "", "{module}.{role}_zero_point", single=(1,)),
    *SPELLINGS[2:],
)
"""The conventions that names can be asked for; compressed-tensors has portable names in shapes of its own."""


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor that an export writes for a scale: the scale's part for one role, under one name."""

    fed: Fed
    role: Role

    @property
    def key(self) -> str:
        return self.fed.key


class Oracle:
    """The engine's prediction, asked name by name and remembered.

    A name's fate does not depend on the others as long as none of them raises, so what raises is asked alone.
    """

    def __init__(self, inspection: Inspection) -> None:
        self.inspection = inspection
        self._known: dict[tuple[str, tuple[int, ...]], Delivery] = {}
        self.nowhere: set[str] = set()
        """Kinds of modules of which no other spelling leads to their layers."""
        self._layers: dict[int | None, list[AttentionLayer]] = {}
        for layer in inspection.deliveries.attention:
            self._layers.setdefault(layer.layer, []).append(layer)

    @cached_property
    def modules(self) -> frozenset[str]:
        """What the checkpoint calls the attention modules that have weights."""
        return frozenset(modules_with_weights(self.inspection.checkpoint))

    def ask(self, tensors: Iterable[Fed]) -> None:
        """Find out about many tensors at once."""
        waiting = [fed for fed in tensors if (fed.key, fed.shape) not in self._known]
        while waiting:
            found = predict_tensors(self.inspection, waiting).deliveries
            raised: str | None = None
            rest: list[Fed] = []
            for fed, delivery in zip(waiting, found, strict=True):
                if raised is None:
                    self._known[fed.key, fed.shape] = delivery
                    raised = without_numbers(fed.key) if delivery.outcome == "raises" else None
                elif without_numbers(fed.key) == raised:  # most likely raises too: asking it alone costs least
                    self._known[fed.key, fed.shape] = predict_tensors(self.inspection, [fed]).deliveries[0]
                else:
                    rest.append(fed)
            waiting = rest

    def fate(self, fed: Fed) -> Delivery:
        self.ask([fed])
        return self._known[fed.key, fed.shape]

    def layer_of(self, scale: KVScale) -> AttentionLayer | None:
        """The attention layer that a scale belongs to, None where the engine builds none there.

        Engine and checkpoint may name a module differently; the layer's number decides, and among several layers of
        one number (encoder and decoder, self and cross attention) the longest common part of both paths.
        """
        parts = scale.module.split(".")
        side = _SIDES.intersection(parts)
        peers = [
            layer
            for layer in self._layers.get(scale.layer, [])
            if not side or side >= _SIDES.intersection(layer.path.split("."))
        ]
        return max(peers, key=lambda layer: _shared(parts, layer.path.split(".")), default=None)

    def lands(self, part: Part) -> bool:
        """Whether the part reaches the parameter of its role in its own layer."""
        return self.parameter(part) is not None

    def parameter(self, part: Part) -> str | None:
        """The name of the parameter of its own layer that the part reaches, None where it reaches another or none."""
        scale = part.fed.scale
        layer = self.layer_of(scale) if scale is not None else None
        delivery = self.fate(part.fed)
        if scale is None or layer is None or delivery.outcome != "loaded" or delivery.target is None:
            return None
        name = layer.parameter_for(part.role, scale.kind)
        return name if name is not None and delivery.target == f"{layer.path}.{name}" else None


def parts_of(scale: KVScale, names: str) -> tuple[Part, ...]:
    """What becomes of a scale under a spelling (its id, or :data:`AS_IS`): one part, or k and v for a common scale.

    A single number is asked about as a scalar; :func:`settled` finds the shape that the parameter has.
    """
    shape = () if scale.numel == 1 else scale.shape
    if names == AS_IS:
        return (Part(_fed(scale, scale.key, scale.role, shape), scale.role),)
    spelling = spelling_of(names)
    roles: tuple[Role, ...] = ("k", "v") if scale.role == "kv" else (scale.role,)
    parts = []
    for role in roles:
        key = spelling.spell(scale, role)
        if key is not None:
            parts.append(Part(_fed(scale, key, role, shape), role))
    return tuple(parts) if len(parts) == len(roles) else ()


def as_convention(scale: KVScale, names: str) -> tuple[Part, ...]:
    """A scale as a convention has it, name and shape; () where the convention has no name for it.

    Scales per head keep their shape, also where the convention has none such.
    """
    spelling = spelling_of(names)
    shape = scale.shape
    if scale.numel == 1:
        shape = spelling.single if spelling.single is not None else scale.shape if len(scale.shape) < 2 else (1,)
    return tuple(Part(_fed(scale, part.key, part.role, shape), part.role) for part in parts_of(scale, names))


def settled(part: Part, stored: tuple[int, ...], parameter: tuple[int, ...]) -> Part:
    """The part in the shape in which it is written, for a parameter of the shape ``parameter``.

    A single number becomes a scalar where the parameter is one; ``[]`` and ``[1]`` both fit a parameter ``[1]`` and
    stay as they are stored; scales per head always do.
    """
    scale = part.fed.scale
    if scale is None:
        return part
    single = scale.numel == 1 and parameter in {(), (1,)}
    shape = parameter if single and not (parameter == (1,) and stored == ()) else stored
    return Part(_fed(scale, part.key, part.role, shape), part.role)


def spelling_of(names: str) -> Spelling:
    """The spelling of that id; raises UsageError when there is none."""
    for spelling in CONVENTIONS:
        if spelling.id == names:
            return spelling
    raise UsageError(
        say("scales cannot be renamed to the convention {names!r}", names=names),
        remedy=say(
            "Choose one of {names}, or {as_is}.",
            names=joined(", ", (spelling.id for spelling in CONVENTIONS)),
            as_is=AS_IS,
        ),
    )


def _fed(scale: KVScale, key: str, role: Role, shape: tuple[int, ...]) -> Fed:
    found = recognise(key)
    convention = found.convention.id if found is not None else scale.convention
    return Fed(key, shape, scale.values, replace(scale, key=key, role=role, shape=shape, convention=convention))


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    left: Mapping[str, int] = {part: one.count(part) for part in one}
    return sum(min(count, other.count(part)) for part, count in left.items())
