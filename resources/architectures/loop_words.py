"""Makes the steps of a loop shorter: flags that nothing sets go, and the usual groups of steps get one word."""

from __future__ import annotations

from typing import Any

from resources.architectures.loop_conditions import NEVER, all_of, any_of, negated
from resources.architectures.loop_reader import Steps, choice

ELEMENTS = ("element", "one element", "squeeze")
GROUPS: tuple[tuple[Steps, Steps], ...] = (
    ([["remap", "name", "name"], ["if", ["not", ["set", "name"]], [["next"]]]], [["remap"]]),
    (
        [["if", ["not", ["in", "<old>", "name"]], [["next"]]], ["replace", "name", "name", "<old>", "<new>"]],
        [["take"]],
    ),
    ([["if", ["not", ["present", "name"]], [["next"]]]], [["skip absent"]]),
    ([["look up", "name"], ["loader"], ["load", "tensor"]], [["give", "tensor"]]),
    ([["look up", "name"], ["own loader"], ["load", "shard"]], [["give", "shard"]]),
    (
        [["look up", "name"], ["loader"], ["if", ["plain"], [["load", "tensor"]], [["load", "shard"]]]],
        [["give", "either"]],
    ),
)
"""Steps that stand together in most loops, and the one word for them."""


def merged(condition: Any) -> Any:
    """Several endings of one variable as one condition."""
    match condition:
        case ["any", *parts] if all(part[0] == "ends" and part[1] == parts[0][1] for part in parts):
            return ["ends", parts[0][1], [text for part in parts for text in part[2]]]
        case ["all" | "any" | "not" as word, *parts]:
            return [word, *map(merged, parts)]
    return condition


def shorter(steps: Steps) -> Steps:
    """The same steps, with the usual groups under one word each, up to the first that ends the loop's round."""
    out: Steps = []
    for step in steps:
        match step:
            case ["if", condition, inside, *other]:
                out.append(["if", merged(condition), shorter(inside), *map(shorter, other)])
            case ["rows", rows, body, *other]:
                out.append(["rows", rows, shorter(body), *map(shorter, other)])
            case ["try", inside, error]:
                out.append(["try", shorter(inside), error])
            case ["once", inside]:
                out.append(["once", shorter(inside)])
            case ["listed", _] if "once" not in str(out):
                continue
            case _:
                out.append(step)
        out[-1] = _block(out[-1])
        for group, word in GROUPS:
            if out[-len(group) :] == group:
                out[-len(group) :] = word
        if out[-1][0] in ("load", "give", "next", "break"):
            break
    return out


def _block(step: Any) -> Any:
    match step:
        case ["if", ["quantized"], [["cache scale", name], ["if", ["set", again], inside]]] if name == again:
            match inside:
                case [["look up", asked], ["loader"], *elements, ["load", "tensor"]] if asked == name and all(
                    each[0] in ELEMENTS for each in elements
                ):
                    return ["output scale", elements]
        case ["if", ["all", ["ends", "name", endings], ["not", ["present", "name"]]], [["next"]]]:
            return ["skip absent", *endings]
    return step


def folded(steps: Steps) -> Steps:
    """Without the flags that nothing ever sets."""
    return _Folding(_set_flags(steps)).block(steps)


def _set_flags(part: Any) -> set[str]:
    if not isinstance(part, list) or not part:
        return set()
    mine = {part[1]} if part[0] == "flag" and part[2:] == [True] else set()
    return mine.union(*map(_set_flags, part))


class _Folding:
    def __init__(self, live: set[str]) -> None:
        self._live = live

    def condition(self, condition: Any) -> Any:
        match condition:
            case ["flag", name] if name not in self._live:
                return NEVER
            case ["not", inner]:
                return negated(self.condition(inner))
            case ["all", *parts]:
                return all_of(*map(self.condition, parts))
            case ["any", *parts]:
                return any_of(*map(self.condition, parts))
        return condition

    def block(self, steps: Steps) -> Steps:
        out: Steps = []
        for step in steps:
            match step:
                case ["flag", name, _] if name not in self._live:
                    continue
                case ["if", condition, inside, *other]:
                    out += choice(self.condition(condition), self.block(inside), self.block(other[0]) if other else [])
                case ["rows", rows, body, *other]:
                    out.append(["rows", rows, self.block(body), *map(self.block, other)])
                case ["once" | "try" as word, inside, *rest]:
                    out.append([word, self.block(inside), *rest])
                case _:
                    out.append(step)
        return out
