"""Reads one hand-written ``load_weights`` of vLLM from its syntax tree, as steps of ``core/architectures/loops.py``.

Nothing is imported or run. Pipeline stages, expert weights and everything about tensors' contents is left out; a
statement that is written in a way this program does not know raises Unknown.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import Any

from resources.architectures.loop_conditions import ALWAYS, NEVER, Conditions, Unknown, all_of, negated

Steps = list[Any]
FOREIGN = re.compile(
    r"query_key_value|key_value|indexer|mamba|expert|A_log|sink|e_score|lm_head|norm|gate_up_proj|embed|router"
    r"|\.weight|pending|in_proj|gguf|beta|spec_layer|mtp"
)
"""A branch that cannot be followed is left out when its condition speaks of one of these: scales are not named so."""


def choice(condition: Any, inside: Steps, other: Steps) -> Steps:
    """An ``if``, as short as can be."""
    if condition == ALWAYS:
        return inside
    if condition == NEVER or inside == other:
        return other
    if not inside:
        return [["if", negated(condition), other]]
    return [["if", condition, inside, other]] if other else [["if", condition, inside]]


class Tables:
    """The tables of stacked names that a function sets up: rows of old name, new name and, sometimes, a condition."""

    def __init__(self, known: dict[str, list[Any]] | None = None) -> None:
        self.known = dict(known or {})

    def read(self, value: ast.expr, when: Any = None) -> list[Any] | None:
        """The rows of a table, a sum of tables or a name of one; None for anything else."""
        conditions = [] if when in (None, ALWAYS) else [when]
        match value:
            case ast.Name(id=name):
                rows = self.known.get(name)
                if rows is None or not conditions:
                    return rows
                return [[old, new, all_of(when, *condition)] for old, new, *condition in rows]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                first, second = self.read(left, when), self.read(right, when)
                return None if first is None or second is None else first + second
            case ast.List(elts=elements):
                return self._literal(elements, conditions)
        return None

    def _literal(self, elements: Iterable[ast.expr], conditions: list[Any]) -> list[Any] | None:
        rows: list[Any] = []
        for each in elements:
            if isinstance(each, ast.Starred):
                rows += self.read(each.value) or []
                continue
            if not (isinstance(each, ast.Tuple) and len(each.elts) >= 3):
                return None
            new, old = (getattr(part, "value", None) for part in each.elts[:2])
            if isinstance(new, str) and isinstance(old, str):  # else a row about expert weights
                rows.append([old, new, *conditions])
        return rows


class Loop(Conditions):
    """One function's loop over the weights. ``steps`` are what it does with every tensor."""

    def __init__(self, function: ast.FunctionDef, rows: dict[str, list[Any]] | None = None) -> None:
        super().__init__()
        self.weight = ""
        self.tables = Tables(rows)
        self.steps: Steps = []
        for statement in function.body:
            if self.name:
                if not isinstance(statement, ast.Return | ast.Expr | ast.For):
                    raise Unknown(f"after the loop: {ast.unparse(statement)[:90]}")
            elif isinstance(statement, ast.For) and ast.unparse(statement.iter) in ("weights", "new_weights.items()"):
                if not isinstance(statement.target, ast.Tuple):
                    raise Unknown(f"for {ast.unparse(statement.target)} in {ast.unparse(statement.iter)}")
                self.name, self.weight = (ast.unparse(each) for each in statement.target.elts)
                self.steps = self.block(statement.body)
            else:
                self._before(statement, ALWAYS)
        if not self.name:
            raise Unknown("no loop over the weights")

    # ------------------------------------------------------------------------------------------------- before the loop
    def _before(self, statement: ast.stmt, when: Any) -> None:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                self._assigned(name, value, when)
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="extend"), args=[rows])):
                self.tables.known.setdefault(name, []).extend(self.tables.read(rows, when) or [])
            case ast.Expr() | ast.FunctionDef() | ast.For() | ast.Assert() | ast.ImportFrom() | ast.Assign():
                return
            case ast.If(test=test, body=body, orelse=other):
                condition = self.condition(test)
                for each in body:
                    self._before(each, all_of(when, condition))
                for each in other:
                    self._before(each, all_of(when, negated(condition)))
            case _:
                raise Unknown(f"before the loop: {ast.unparse(statement)[:90]}")

    def _assigned(self, name: str, value: ast.expr, when: Any) -> None:
        text = ast.unparse(value)
        if "named_parameters" in text or "params_dict" in text:
            self.parameters.add(name)
        elif (rows := self.tables.read(value, when)) is not None:
            self.tables.known[name] = rows
        elif "rocm_aiter" in text:
            self.false.add(name)
        else:
            try:
                self.constants[name] = ast.literal_eval(value)
            except ValueError:
                self.constants[name] = None

    # -------------------------------------------------------------------------------------------------------- the loop
    def block(self, body: Iterable[ast.stmt]) -> Steps:
        """The steps of a block, up to the first that leaves it."""
        steps: Steps = []
        for statement in body:
            steps += self.statement(statement)
            if steps and steps[-1] in (["next"], ["break"]):
                break
        return steps

    def statement(self, node: ast.stmt) -> Steps:
        """The steps of one statement. Raises Unknown."""
        match node:
            case ast.Continue() | ast.Break():
                return [["next"]] if isinstance(node, ast.Continue) else [["break"]]
            case ast.If():
                return self._branch(node)
            case ast.For():
                return self._for(node)
            case ast.Assert(test=test):
                return [["one element"]] if ast.unparse(test) == f"{self.weight}.numel() == 1" else []
            case ast.Expr(value=value):
                return self._call(value) if isinstance(value, ast.Call) else []
            case ast.Pass() | ast.AnnAssign():
                return []
            case ast.Assign(targets=[target], value=value):
                return self._assign(target, value)
            case ast.Try(body=body, handlers=[ast.ExceptHandler(body=[ast.Raise(exc=ast.Call(func=error))])]):
                return [["try", self.block(body), ast.unparse(error)]]
        raise Unknown(ast.unparse(node)[:90])

    def _branch(self, node: ast.If) -> Steps:
        test = node.test
        if isinstance(test, ast.BoolOp) and isinstance(test.values[-1], ast.NamedExpr) and not node.orelse:
            asked = test.values[-1].target.id
            inner = [["cache scale", asked], *choice(["set", asked], self.block(node.body), [])]
            return choice(all_of(*map(self.condition, test.values[:-1])), inner, [])
        foreign = FOREIGN.search(ast.unparse(test))
        try:
            condition = self.condition(test)
        except Unknown:
            if not foreign:
                raise
            condition = NEVER
        if condition == NEVER:
            return self.block(node.orelse)
        try:
            inside = self.block(node.body)
        except Unknown:
            if not foreign:
                raise
            inside = [["foreign"]]
        return choice(condition, inside, self.block(node.orelse))

    def _for(self, node: ast.For) -> Steps:
        table = ast.unparse(node.iter)
        if "expert" in table:
            return [["experts"], *self.block(node.orelse)]
        if table.startswith("range("):
            return [["once", self.block(node.body)]]
        text = ast.unparse(node)
        if isinstance(node.iter, ast.List) and f"{self.name} = " not in text and "param" not in text:
            return []
        rows = self.tables.read(node.iter) if isinstance(node.iter, ast.Name) else None
        if rows is None or not isinstance(node.target, ast.Tuple):
            raise Unknown(f"for {ast.unparse(node.target)} in {table[:60]}")
        outer = self.row
        new, old = (ast.unparse(each) for each in node.target.elts[:2])
        self.row = (old, new)
        body = self.block(node.body)
        self.row = outer
        other = self.block(node.orelse)
        return [["rows", rows, body, other]] if other else [["rows", rows, body]]

    def _call(self, call: ast.Call) -> Steps:
        function = ast.unparse(call.func)
        if function in ("weight_loader", "default_weight_loader") and ast.unparse(call.args[0]) == "param":
            if function == "default_weight_loader":
                return [["load", "default"]]
            return [["load", "tensor" if len(call.args) + len(call.keywords) == 2 else "shard"]]
        if function.endswith(".add") and isinstance(call.args[0], ast.Name):
            return [["listed", self.var(call.args[0])]]
        if re.search(r"\.add$|^logger|\.update$|\.append$|post_weight_load", function):
            return []
        raise Unknown(ast.unparse(call)[:90])

    # ----------------------------------------------------------------------------------------------------- assignments
    def _assign(self, target: ast.expr, value: ast.expr) -> Steps:
        name, text = ast.unparse(target), ast.unparse(value)
        readers = {"param": self._param, "weight_loader": self._loader, self.weight: self._weight}
        found = readers[name](value) if name in readers else self._variable(target, value)
        if found is None:
            raise Unknown(f"{name} = {text[:90]}")
        return found

    def _param(self, value: ast.expr) -> Steps | None:
        match value:
            case ast.Subscript(value=ast.Name(id=found), slice=key) if found in self.parameters:
                return [["look up", self.var(key)]]
            case ast.Call(func=ast.Attribute(value=ast.Name(id=found), attr="get"), args=[key]):
                return [["look up", self.var(key), "or none"]] if found in self.parameters else None
        return None

    def _loader(self, value: ast.expr) -> Steps | None:
        text = ast.unparse(value)
        if text == "param.weight_loader":
            return [["own loader"]]
        return [["loader"]] if text.startswith("getattr(param, 'weight_loader'") else None

    def _weight(self, value: ast.expr) -> Steps | None:
        weight, text = self.weight, ast.unparse(value)
        if text.startswith(f"{weight}.chunk("):
            return [["foreign"]]
        return {
            f"{weight} if {weight}.dim() == 0 else {weight}[0]": [["element", "of a list"]],
            f"{weight}[0]": [["element"]],
            f"{weight}.squeeze()": [["squeeze"]],
        }.get(text)

    def _variable(self, target: ast.expr, value: ast.expr) -> Steps | None:
        if not isinstance(target, ast.Name):
            return None
        text = ast.unparse(value)
        if isinstance(value, ast.List | ast.Tuple) and all(isinstance(each, ast.Constant) for each in value.elts):
            self.constants[target.id] = ast.literal_eval(value)
            return []
        variable = self.var(target)
        if isinstance(value, ast.Constant) and isinstance(value.value, bool):
            return [["flag", variable, value.value]]
        if text.startswith("getattr(param, 'output_dim'"):
            self.nothing.add(variable)
            return []
        about_shapes = re.search(r"shape|range|getattr\(self.config", text) and "name" not in text
        if about_shapes or isinstance(value, ast.Constant) or text == self.weight:
            return []
        return self._naming(variable, value)

    def _naming(self, variable: str, value: ast.expr) -> Steps | None:
        match value:
            case ast.Name():
                return None if value.id != self.name and value.id in self.constants else self._copy(variable, value)
            case ast.IfExp(test=test, body=ast.Name() as then, orelse=ast.Name() as otherwise):
                return choice(self.condition(test), self._copy(variable, then), self._copy(variable, otherwise))
            case ast.Call():
                return self._made_by(variable, value)
            case ast.BinOp(left=ast.Name() as source, op=ast.Add(), right=ast.Constant(value=str() as suffix)):
                return [["suffix", variable, self.var(source), suffix]]
            case ast.JoinedStr(values=[ast.Constant(value=prefix), ast.FormattedValue(value=source)]):
                return [["prefix", variable, self.var(source), prefix]]
            case ast.BoolOp() if self.condition(value) == NEVER:
                self.false.add(variable)
                return []
        return None

    def _copy(self, variable: str, source: ast.expr) -> Steps:
        return [] if self.var(source) == variable else [["copy", variable, self.var(source)]]

    def _made_by(self, variable: str, call: ast.Call) -> Steps | None:
        match call:
            case ast.Call(func=ast.Name(id="maybe_remap_moe_expert_param_name"), args=[source, *_]):
                return self._copy(variable, source)
            case ast.Call(func=ast.Name(id="maybe_remap_kv_scale_name"), args=[source, *_]):
                return [["remap", variable, self.var(source)]]
            case ast.Call(func=ast.Attribute(attr="get_cache_scale")):
                return [["cache scale", variable]]
            case ast.Call(func=ast.Name(id="get_spec_layer_idx_from_weight_name")):
                self.constants[variable] = "draft"
                return []
            case ast.Call(func=ast.Attribute(value=source, attr="replace"), args=[old, new, *count]):
                return [["replace", variable, self.var(source), self.part(old), self.part(new), *(1 for _ in count)]]
        return None
