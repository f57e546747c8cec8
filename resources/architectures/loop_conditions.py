"""The conditions of a hand-written ``load_weights`` of vLLM, read from its syntax tree.

They become the conditions of ``core/architectures/loops.py``, as far as they speak of names and parameters.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any

ALWAYS, NEVER = ["always"], ["never"]


class Unknown(Exception):
    """Something that this program does not know how to read."""


def all_of(*conditions: Any) -> Any:
    """All of these, as short as can be."""
    kept = [each for each in conditions if each != ALWAYS]
    if NEVER in kept:
        return NEVER
    return ALWAYS if not kept else kept[0] if len(kept) == 1 else ["all", *kept]


def any_of(*conditions: Any) -> Any:
    """Any of these, as short as can be."""
    kept = [each for each in conditions if each != NEVER]
    if ALWAYS in kept:
        return ALWAYS
    return NEVER if not kept else kept[0] if len(kept) == 1 else ["any", *kept]


def negated(condition: Any) -> Any:
    """The opposite of a condition."""
    if condition in (ALWAYS, NEVER):
        return NEVER if condition == ALWAYS else ALWAYS
    return condition[1] if condition[0] == "not" else ["not", condition]


class Conditions:
    """Reads conditions inside one function.

    ``name`` is the variable of the tensor's name; ``constants`` what the function sets once; ``parameters`` the
    variables that hold all parameters; ``false`` what is false on every machine without a special library, ``nothing``
    what is None for a scale; ``row`` the two variables of the table's row, old and new.
    """

    def __init__(self) -> None:
        self.name = ""
        self.constants: dict[str, Any] = {}
        self.parameters: set[str] = set()
        self.false: set[str] = set()
        self.nothing: set[str] = set()
        self.row: tuple[str, str] | None = None

    def var(self, node: ast.expr) -> str:
        """The variable a node stands for."""
        if not isinstance(node, ast.Name):
            raise Unknown(f"no variable: {ast.unparse(node)[:90]}")
        return "name" if node.id == self.name else node.id

    def part(self, node: ast.expr) -> str:
        """A text that is looked for in names: a literal, or the row's own."""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and isinstance(node.right, ast.Constant):
            return self.part(node.left) + str(node.right.value)
        if self.row and ast.unparse(node) in self.row:
            return "<old>" if ast.unparse(node) == self.row[0] else "<new>"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        raise Unknown(f"part {ast.unparse(node)[:60]}")

    def texts(self, node: ast.expr) -> list[str]:
        """One or several literal texts."""
        value = self.constants.get(node.id) if isinstance(node, ast.Name) else None
        if value is None:
            try:
                value = ast.literal_eval(node)
            except ValueError as error:
                raise Unknown(f"texts {ast.unparse(node)[:60]}") from error
        return [value] if isinstance(value, str) else list(value)

    def condition(self, node: ast.expr) -> Any:
        """A condition as words. Raises Unknown."""
        reader = _READERS.get(type(node))
        found = reader(self, node) if reader is not None else None
        if found is not None:
            return found
        text = ast.unparse(node)
        if re.match(r"(self\.)?_try_load_fp8", text) or "rocm_aiter" in text or "get_name() == 'gguf'" in text:
            return NEVER
        raise Unknown(f"condition {text[:90]}")

    def _bool(self, node: ast.BoolOp) -> Any:
        combine = all_of if isinstance(node.op, ast.And) else any_of
        return combine(*(self.condition(each) for each in node.values))

    def _not(self, node: ast.UnaryOp) -> Any:
        return negated(self.condition(node.operand)) if isinstance(node.op, ast.Not) else None

    def _constant(self, node: ast.Constant) -> Any:
        return (ALWAYS if node.value else NEVER) if isinstance(node.value, bool) else None

    def _name(self, node: ast.Name) -> Any:
        if node.id in self.false:
            return NEVER
        known = self.constants.get(node.id)
        if isinstance(known, bool):
            return ALWAYS if known else NEVER
        return ["flag", node.id]

    def _attribute(self, node: ast.Attribute) -> Any:
        match ast.unparse(node):
            case "self.quant_config":
                return ["quantized"]
            case "self.use_mha":
                return ["without mla"]
        return ["config", node.attr] if ast.unparse(node.value) == "self.config" else None

    def _call(self, node: ast.Call) -> Any:
        match node:
            case ast.Call(func=ast.Name(id="is_pp_missing_parameter")):
                return NEVER
            case ast.Call(func=ast.Name(id="any"), args=[ast.GeneratorExp(elt=elt, generators=[each])]):
                if isinstance(elt, ast.Compare) and isinstance(elt.ops[0], ast.In):
                    return any_of(*(["in", text, self.var(elt.comparators[0])] for text in self.texts(each.iter)))
            case ast.Call(func=ast.Attribute(value=source, attr="endswith"), args=[texts]):
                return ["ends", self.var(source), self.texts(texts)]
            case ast.Call(func=ast.Attribute(value=source, attr="startswith"), args=[texts]):
                return ["starts", self.var(source), self.texts(texts)]
            case ast.Call(func=ast.Name(id="getattr" | "hasattr"), args=[config, ast.Constant(value=field), *_]):
                return ["config", field] if ast.unparse(config).endswith("config") else None
        return None

    def _compare(self, node: ast.Compare) -> Any:
        left, operator, right = node.left, node.ops[0], node.comparators[0]
        if isinstance(operator, ast.In | ast.NotIn):
            found = self._contained(left, right)
        elif isinstance(right, ast.Constant) and right.value is None:
            found = negated(self._given(left))
        else:
            found = self._equal(left, right)
        if found is None:
            raise Unknown(f"condition {ast.unparse(node)[:90]}")
        return found if isinstance(operator, ast.In | ast.Is | ast.Eq) else negated(found)

    def _contained(self, left: ast.expr, right: ast.expr) -> Any:
        if isinstance(right, ast.Name) and right.id in self.parameters:
            return ["present", self.var(left)]
        return ["in", self.part(left), self.var(right)]

    def _given(self, node: ast.expr) -> Any:
        """That something is not None."""
        text = ast.unparse(node)
        if text == "self.quant_config":
            return ["quantized"]
        if self.constants.get(text) == "draft":
            return ["draft"]
        if text == "param":
            return ["found"]
        return NEVER if text in self.nothing else ["set", self.var(node)]

    def _equal(self, left: ast.expr, right: ast.expr) -> Any:
        text = ast.unparse(left)
        if "get_name()" in text:
            return NEVER if "gguf" in ast.unparse(right) else None
        if text == "weight_loader" and ast.unparse(right) == "default_weight_loader":
            return ["plain"]
        if not (isinstance(right, ast.Constant) and isinstance(right.value, str)):
            return None
        if self.row and text in self.row:
            return ["row", "old" if text == self.row[0] else "new", right.value]
        return ["is", self.var(left), right.value]


_READERS: Mapping[type[ast.expr], Callable[[Conditions, Any], Any]] = {
    ast.BoolOp: Conditions._bool,  # noqa: SLF001  (the table belongs to the class)
    ast.UnaryOp: Conditions._not,  # noqa: SLF001
    ast.Constant: Conditions._constant,  # noqa: SLF001
    ast.Name: Conditions._name,  # noqa: SLF001
    ast.Attribute: Conditions._attribute,  # noqa: SLF001
    ast.Call: Conditions._call,  # noqa: SLF001
    ast.Compare: Conditions._compare,  # noqa: SLF001
}
