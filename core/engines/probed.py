"""What ``resources/probe/probe_vllm.py`` prints (schema ``kvscope.probe/1``), read strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, NoReturn, TypeVar

from core.naming.mapper import ORDER, Rule, RuleKind, WeightsMapper
from core.wording import joined, say
from resources import resource

SCHEMA = "kvscope.probe/1"
LIMIT = 16 << 20
"""Bytes of the largest document that is read; the real ones have half a MiB."""

Passes = Literal["class", "none", "own", "other"]
_PASSES: tuple[Passes, ...] = ("class", "none", "own", "other")
_LONGEST = 4096
_MOST = 50_000

T = TypeVar("T")


class NotUnderstoodError(ValueError):
    """The document is not what the script prints; says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedMapper:
    """A mapper of the installed vLLM.

    ``unread`` are its fields of a kind that is not known here. ``disagreements`` are names that vLLM's own code renames
    in another way than these rules do here: (name, vLLM's answer, ours).
    """

    mapper: WeightsMapper
    unread: tuple[str, ...] = ()
    disagreements: tuple[tuple[str, str | None, str | None], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedMethod:
    """A quantization method: its config class and its rules; None where the version has no such mapper."""

    config_class: str
    cache_scales: ProbedMapper | None
    checkpoint: ProbedMapper | None
    ignored_suffixes: tuple[str, ...]
    asks_cache_scale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedClass:
    """How a model class loads itself.

    ``passes``: what it hands to AutoWeightsLoader: the class's ``mapper``, nothing, something else, or "own" where it
    loops over the tensors by itself. ``written`` names the class that has the code, ``source`` is a digest of it.
    """

    passes: Passes
    mapper: ProbedMapper | None
    written: str
    source: str

    @property
    def handed(self) -> WeightsMapper | None:
        """The mapper AutoWeightsLoader is given; None where that cannot be read from the class."""
        match self.passes:
            case "class":
                return self.mapper.mapper if self.mapper is not None else None
            case "none":
                return WeightsMapper()
            case _:
                return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Everything that was read. What could not be read is named with the reason.

    ``architectures`` maps a name to its class, "file.Class"; ``classes`` are by that name. ``complete`` is false where
    the time was over before every module was read.
    """

    version: str
    python_version: str
    platform: str
    complete: bool
    methods: Mapping[str, ProbedMethod]
    unread_methods: Mapping[str, str]
    classes: Mapping[str, ProbedClass]
    architectures: Mapping[str, str]
    unread_architectures: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedEngine:
    """An installed vLLM: what was read, with which Python (as given) and when (ISO 8601, UTC)."""

    reading: Reading
    python: str
    date: str
    document: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def version(self) -> str:
        return self.reading.version


def parse_json(text: str | bytes) -> Any:
    """The JSON in that text, without NaN and infinities. Raises NotUnderstoodError."""

    def refuse(name: str) -> NoReturn:
        raise NotUnderstoodError(say("{name} is no JSON number", name=name))

    try:
        return json.loads(text, parse_constant=refuse)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise NotUnderstoodError(say("it is not JSON")) from error


def read_probe(document: Any) -> Reading:
    """The document as checked data. Raises NotUnderstoodError that says which part is not as it must be."""
    names = (
        "schema", "vllm", "python", "platform", "complete", "names", "mappers", "methods", "classes", "architectures"
    )  # fmt: skip
    fields = _fields(document, names, say("the document"))
    if fields["schema"] != SCHEMA:
        found = str(fields["schema"])[:60]
        raise NotUnderstoodError(say("its schema is {written!r}, not {schema!r}", written=found, schema=SCHEMA))
    asked = _texts(fields["names"], "names")
    written = [_mapper_fields(row, len(asked), f"mappers[{number}]") for number, row in _rows(fields["mappers"])]
    methods = _either(fields["methods"], "methods", lambda row, where: _method_fields(row, len(written), where))
    mappers = _mappers(written, methods, asked)
    return Reading(
        version=_text(fields["vllm"], "vllm"),
        python_version=_text(fields["python"], "python"),
        platform=_text(fields["platform"], "platform"),
        complete=_true_or_false(fields["complete"], "complete"),
        methods=MappingProxyType({name: _method(row, mappers) for name, row in methods[0].items()}),
        unread_methods=MappingProxyType(methods[1]),
        classes=MappingProxyType(
            {name: _class(row, mappers, f"classes[{name!r}]") for name, row in _table(fields["classes"], "classes")}
        ),
        **_architectures(fields["architectures"], fields["classes"]),
    )


@cache
def release_reading(release: str) -> Reading | None:
    """What the script read from a release that was run ("vllm-0.33.0"); None for one it was not run on."""
    path = resource("probe") / f"{release}.json"
    return read_probe(parse_json(path.read_bytes())) if path.is_file() else None


# ------------------------------------------------------------------------------------------------------------ the parts
def _method_fields(row: Any, mappers: int, where: str) -> dict[str, Any]:
    names = ("config_class", "cache_scale_mapper", "checkpoint_mapper", "ignored_suffixes", "asks_cache_scale")
    fields = _fields(row, names, where)
    _text(fields["config_class"], f"{where}: config_class")
    for name in ("cache_scale_mapper", "checkpoint_mapper"):
        _position(fields[name], mappers, f"{where}: {name}")
    if fields["ignored_suffixes"] is not None:
        _texts(fields["ignored_suffixes"], f"{where}: ignored_suffixes")
    _true_or_false(fields["asks_cache_scale"], f"{where}: asks_cache_scale")
    return fields


def _method(fields: dict[str, Any], mappers: list[ProbedMapper]) -> ProbedMethod:
    cache_scales, checkpoint = fields["cache_scale_mapper"], fields["checkpoint_mapper"]
    return ProbedMethod(
        config_class=fields["config_class"],
        cache_scales=None if cache_scales is None else mappers[cache_scales],
        checkpoint=None if checkpoint is None else mappers[checkpoint],
        ignored_suffixes=tuple(fields["ignored_suffixes"] or ()),
        asks_cache_scale=fields["asks_cache_scale"],
    )


def _class(row: Any, mappers: list[ProbedMapper], where: str) -> ProbedClass:
    fields = _fields(row, ("passes", "mapper", "written", "source"), where)
    passes = next((word for word in _PASSES if word == fields["passes"]), None)
    if passes is None:
        known = joined(", ", _PASSES)
        raise NotUnderstoodError(say("{where}: passes is none of {known}", where=where, known=known))
    position = _position(fields["mapper"], len(mappers), f"{where}: mapper")
    return ProbedClass(
        passes=passes,
        mapper=None if position is None else mappers[position],
        written=_text(fields["written"], f"{where}: written"),
        source=_text(fields["source"], f"{where}: source"),
    )


def _architectures(value: Any, classes: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    def read(row: Any, where: str) -> str:
        name = _text(_fields(row, ("class",), where)["class"], where)
        if name not in classes:
            problem = say("{where} names the class {name!r}, which is not there", where=where, name=name[:100])
            raise NotUnderstoodError(problem)
        return name

    found, unread = _either(value, "architectures", read)
    return {"architectures": MappingProxyType(found), "unread_architectures": MappingProxyType(unread)}


# ---------------------------------------------------------------------------------------------------------- the mappers
def _mapper_fields(row: Any, asked: int, where: str) -> tuple[ProbedMapper, dict[str, Any]]:
    fields = _fields(row, ("rules", "unread", "names", "with_fp8"), where)
    for name in ("names", "with_fp8"):
        answers = fields[name]
        if answers is None and name == "with_fp8":
            continue
        if not isinstance(answers, list) or len(answers) != asked:
            raise NotUnderstoodError(
                say("{where}: {name} is no list of {count} answers", where=where, name=name, count=asked)
            )
        for answer in answers:
            if answer is not None:
                _text(answer, f"{where}: {name}")
    mapper = WeightsMapper(_rules(fields["rules"], f"{where}: rules"))
    return ProbedMapper(mapper=mapper, unread=_texts(fields["unread"], f"{where}: unread")), fields


def _rules(value: Any, where: str) -> tuple[Rule, ...]:
    by_kind = dict(_table(value, where))
    if unknown := sorted(set(by_kind) - set(ORDER)):
        raise NotUnderstoodError(say("{where}: {kind!r} is no kind of rule", where=where, kind=unknown[0][:60]))
    return tuple(
        _rule(kind, row, f"{where}: {kind}[{number}]") for kind in ORDER for number, row in _rows(by_kind.get(kind, []))
    )


def _rule(kind: RuleKind, row: Any, where: str) -> Rule:
    if not isinstance(row, list) or len(row) != (3 if kind is RuleKind.STACKED else 2):
        raise NotUnderstoodError(say("{where} is no rule", where=where))
    pattern, replacement = _text(row[0], where), row[1]
    if replacement is not None:
        _text(replacement, where)
    if kind in (RuleKind.REGEX, RuleKind.RENAMING):
        try:
            re.compile(pattern).sub(replacement or "", "")  # reads the replacement's groups without a match, too
        except (re.error, IndexError) as error:
            problem = say("{where} is no regular expression: {error}", where=where, error=str(error))
            raise NotUnderstoodError(problem) from error
    shard = row[2] if len(row) == 3 else None
    if isinstance(shard, list) and len(shard) <= 64 and all(type(part) in (int, str) for part in shard):
        shard = str(shard)
    if shard is not None and type(shard) not in (int, str):
        raise NotUnderstoodError(say("{where} has a shard that is no text and no number", where=where))
    return Rule(kind, pattern, replacement, shard=shard, foreign=True)


def _mappers(
    written: list[tuple[ProbedMapper, dict[str, Any]]],
    methods: tuple[dict[str, dict[str, Any]], dict[str, str]],
    asked: tuple[str, ...],
) -> list[ProbedMapper]:
    """The mappers, each asked about the same names as vLLM's own code was: alone, and merged with fp8's."""
    position = methods[0].get("fp8", {}).get("cache_scale_mapper")
    fp8 = written[position][0].mapper if position is not None else None
    found = []
    for probed, fields in written:
        different = _disagreements(probed.mapper, asked, fields["names"])
        if fields["with_fp8"] is not None and fp8 is not None:
            different += _disagreements(probed.mapper | fp8, asked, fields["with_fp8"])
        found.append(ProbedMapper(mapper=probed.mapper, unread=probed.unread, disagreements=different))
    return found


def _disagreements(
    mapper: WeightsMapper, names: tuple[str, ...], answers: list[str | None]
) -> tuple[tuple[str, str | None, str | None], ...]:
    ours = map(mapper.map_name, names)
    return tuple(row for row in zip(names, answers, ours, strict=True) if row[1] != row[2])


# ---------------------------------------------------------------------------------------------------------- JSON values
def _fields(value: Any, names: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NotUnderstoodError(say("{where} is no object", where=where))
    if missing := [name for name in names if name not in value]:
        raise NotUnderstoodError(say("{where} has no {field}", where=where, field=missing[0]))
    if more := sorted(set(value) - set(names)):
        raise NotUnderstoodError(say("{where} has the unknown field {field!r}", where=where, field=more[0][:60]))
    return value


def _either(value: Any, where: str, read: Callable[[Any, str], T]) -> tuple[dict[str, T], dict[str, str]]:
    """A table whose rows are what ``read`` makes of them, or an ``error``: those that were read, and the errors."""
    found: dict[str, T] = {}
    unread: dict[str, str] = {}
    for name, row in _table(value, where):
        at = f"{where}[{name!r}]"
        if isinstance(row, dict) and set(row) == {"error"}:
            unread[name] = _text(row["error"], at)
        else:
            found[name] = read(row, at)
    return found, unread


def _table(value: Any, where: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise NotUnderstoodError(say("{where} is no object", where=where))
    if len(value) > _MOST:
        raise NotUnderstoodError(say("{where} has more than {most:,} entries", where=where, most=_MOST))
    for name in value:
        _text(name, where)
    return list(value.items())


def _rows(value: Any) -> list[tuple[int, Any]]:
    if not isinstance(value, list) or len(value) > _MOST:
        raise NotUnderstoodError(say("mappers and their rules are lists"))
    return list(enumerate(value))


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MOST:
        raise NotUnderstoodError(say("{where} is no list of texts", where=where))
    return tuple(_text(each, where) for each in value)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise NotUnderstoodError(say("{where} is no text of at most {most:,} characters", where=where, most=_LONGEST))
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise NotUnderstoodError(say("{where!r} holds half a character", where=where[:100])) from error
    return value


def _true_or_false(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise NotUnderstoodError(say("{where} is neither true nor false", where=where))
    return value


def _position(value: Any, length: int, where: str) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < length:
        raise NotUnderstoodError(say("{where} is no position in mappers", where=where))
    return value
