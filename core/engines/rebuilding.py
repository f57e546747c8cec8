"""A built-in module tree with the mappers of an installed vLLM."""

from __future__ import annotations

from dataclasses import replace

from core.architectures import AutoLoader, FusedLinearLoader, ModuleNode
from core.architectures.modules import Loader
from core.engines.difference import registered, same_rules
from core.engines.probed import ProbedClass, Reading
from core.naming.mapper import WeightsMapper
from core.wording import say


class ContradictionError(Exception):
    """What was probed and the built-in module tree do not fit together; ``reason`` is a sentence for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Rebuilding:
    """Turns built-in module trees into those of the installed version."""

    def __init__(self, reading: Reading, known: Reading) -> None:
        self._reading = reading
        self._known = known
        self._now, self._before = registered(reading), registered(known)
        self._changed = frozenset(
            name for name, found in reading.classes.items() if name in known.classes and known.classes[name] != found
        )
        self._by_name: dict[str, list[str]] = {}
        for name in known.classes:
            self._by_name.setdefault(name.rpartition(".")[2], []).append(name)

    def model(self, architecture: str, root: ModuleNode) -> tuple[ModuleNode, tuple[str, ...]]:
        """The tree with the mappers as they are there, and the classes in it whose code was rewritten.

        Raises ContradictionError where the tree cannot be right for that version.
        """
        installed, known = self._reading.version, self._known.version
        if architecture in self._before and architecture not in self._now:
            raise ContradictionError(
                say(
                    "the installed vLLM {installed} does not register {architecture}",
                    installed=installed,
                    architecture=architecture,
                )
            )
        old, new = self._before.get(architecture, ""), self._now.get(architecture, "")
        if old and new and old != new:
            raise ContradictionError(
                say(
                    "the installed vLLM {installed} builds {architecture} as {new}, which is not known; vLLM {known} "
                    "builds it as {old}",
                    installed=installed,
                    architecture=architecture,
                    new=new,
                    known=known,
                    old=old,
                )
            )
        if not self._changed:
            return root, ()
        done: dict[tuple[ModuleNode, str], ModuleNode] = {}
        rewritten: dict[str, None] = {}
        return self._node(root, new or old, done, rewritten), tuple(rewritten)

    def _node(
        self,
        node: ModuleNode,
        expected: str,
        done: dict[tuple[ModuleNode, str], ModuleNode],
        rewritten: dict[str, None],
    ) -> ModuleNode:
        """``expected`` is the class that the registry names, or the file that the parent's class stands in."""
        if next(node.attention_layers(), None) is None:
            return node  # no scale ends below: a vision tower may load itself as it likes
        key = (node, expected)
        if key not in done:
            name = self._name(node.cls, expected)
            loader = node.loader
            if name in self._changed and loader is not None and not isinstance(loader, FusedLinearLoader):
                loader = self._loader(name, loader)
                if self._known.classes[name].source != self._reading.classes[name].source:
                    rewritten[name] = None
            file = name.rpartition(".")[0] if name is not None else expected
            children = {part: self._node(child, file, done, rewritten) for part, child in node.children.items()}
            same = loader is node.loader and all(children[part] is child for part, child in node.children.items())
            done[key] = node if same else replace(node, loader=loader, children=children)
        return done[key]

    def _name(self, cls: str, expected: str) -> str | None:
        """The full name of a module class, which module trees give without its file; None where it is ambiguous."""
        for name in (expected, f"{expected}.{cls}"):
            if name.endswith(f".{cls}") and name in self._known.classes:
                return name
        found = self._by_name.get(cls, ())
        return found[0] if len(found) == 1 else None

    def _loader(self, name: str, loader: Loader) -> Loader:
        before, now = self._known.classes[name], self._reading.classes[name]
        installed, known = self._reading.version, self._known.version
        if isinstance(loader, AutoLoader) and before.handed is not None and now.handed is not None:
            return self._handed(name, loader, before.handed, now.handed)
        if before.passes != now.passes:
            raise ContradictionError(
                say(
                    "{loader} loads itself in another way in the installed vLLM {installed} than in vLLM {known}, "
                    "whose way alone is known",
                    loader=name,
                    installed=installed,
                    known=known,
                )
            )
        if isinstance(loader, AutoLoader) and now.passes == "other" and not _same_mapper(before, now):
            raise ContradictionError(
                say(
                    "{loader} has another mapper in the installed vLLM {installed}, and only running code shows how it "
                    "is used",
                    loader=name,
                    installed=installed,
                )
            )
        return loader

    def _handed(self, name: str, loader: AutoLoader, before: WeightsMapper, now: WeightsMapper) -> AutoLoader:
        """The loader with its new mapper; what happens to names ahead of the mapper stays."""
        if same_rules(before, now):
            return loader
        known = {(rule.kind, rule.pattern) for rule in before.rules}
        ahead = tuple(rule for rule in loader.mapper.rules if (rule.kind, rule.pattern) not in known)
        version = self._reading.version
        if not same_rules(WeightsMapper((*ahead, *before.rules)), loader.mapper):
            raise ContradictionError(
                say(
                    "the mapper of {loader} changed in the installed vLLM {installed}, and so did its use",
                    loader=name,
                    installed=version,
                )
            )
        source = f"vLLM {version} as installed, {name}'s own mapper"
        return replace(loader, mapper=WeightsMapper((*ahead, *with_source(now, source).rules)))


def _same_mapper(left: ProbedClass, right: ProbedClass) -> bool:
    empty = WeightsMapper()
    return same_rules(
        left.mapper.mapper if left.mapper is not None else empty,
        right.mapper.mapper if right.mapper is not None else empty,
    )


def with_source(mapper: WeightsMapper, source: str) -> WeightsMapper:
    """The same rules, said to come from there."""
    return WeightsMapper(tuple(replace(rule, source=source) for rule in mapper.rules))
