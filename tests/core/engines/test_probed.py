"""The probe's document, read strictly: every part wrong once."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from core.engines.probed import NotUnderstoodError, parse_json, read_probe, release_reading
from core.engines.vllm.releases import RELEASES

DOCUMENT: dict[str, Any] = {
    "schema": "kvscope.probe/1",
    "vllm": "0.33.0",
    "python": "3.12.1",
    "platform": "CudaPlatform",
    "complete": True,
    "names": ["a.k_proj.output_scale", "a.g_idx"],
    "mappers": [
        {
            "rules": {"suffix": [[".k_proj.output_scale", ".attn.k_scale"]]},
            "unread": [],
            "names": ["a.attn.k_scale", "a.g_idx"],
            "with_fp8": ["a.attn.k_scale", "a.g_idx"],
        },
        {
            "rules": {"stacked": [[".k_proj", ".qkv_proj", "k"]], "suffix": [[".g_idx", None]]},
            "unread": [],
            "names": ["a.qkv_proj.output_scale", None],
            "with_fp8": ["a.qkv_proj.output_scale", None],
        },
    ],
    "methods": {
        "fp8": {
            "config_class": "quantization.fp8.Fp8Config",
            "cache_scale_mapper": 0,
            "checkpoint_mapper": None,
            "ignored_suffixes": [".k_scale"],
            "asks_cache_scale": False,
        },
        "odd": {"error": "RuntimeError"},
    },
    "classes": {"llama.Llama": {"passes": "class", "mapper": 1, "written": "llama.Llama", "source": "ab"}},
    "architectures": {"Llama": {"class": "llama.Llama"}, "Absent": {"error": "ImportError: timm"}},
}


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    change(document)
    return document


def test_a_whole_document() -> None:
    reading = read_probe(json.loads(json.dumps(DOCUMENT)))
    fp8 = reading.methods["fp8"]
    assert fp8.cache_scales is not None
    assert fp8.cache_scales.mapper.map_name("x.k_proj.output_scale") == "x.attn.k_scale"
    assert (fp8.checkpoint, fp8.ignored_suffixes, reading.unread_methods) == (
        None,
        (".k_scale",),
        {"odd": "RuntimeError"},
    )
    handed = reading.classes["llama.Llama"].handed
    assert handed is not None
    assert [rule.shard for rule in handed.rules] == ["k", None]
    assert (reading.architectures, reading.unread_architectures) == (
        {"Llama": "llama.Llama"},
        {"Absent": "ImportError: timm"},
    )
    assert all(not each.mapper.disagreements for each in reading.classes.values() if each.mapper is not None)


def test_answers_of_the_engine_are_held_against_ours() -> None:
    document = changed(lambda it: it["mappers"][1]["names"].__setitem__(0, "a.attn.k_scale"))
    mapper = read_probe(document).classes["llama.Llama"].mapper
    assert mapper is not None
    assert mapper.disagreements == (("a.k_proj.output_scale", "a.attn.k_scale", "a.qkv_proj.output_scale"),)
    merged = changed(lambda it: it["mappers"][1].update(with_fp8=["a.attn.k_scale", None]))
    mapper = read_probe(merged).classes["llama.Llama"].mapper
    assert mapper is not None
    assert mapper.disagreements == (("a.k_proj.output_scale", "a.attn.k_scale", "a.qkv_proj.output_scale"),)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda it: it.update(schema="kvscope.probe/2"), "its schema is 'kvscope.probe/2', not 'kvscope.probe/1'"),
        (lambda it: it.pop("names"), "the document has no names"),
        (lambda it: it.update(more=1), "the document has the unknown field 'more'"),
        (lambda it: it.update(vllm=None), "vllm is no text of at most 4,096 characters"),
        (lambda it: it.update(python="x" * 5000), "python is no text of at most 4,096 characters"),
        (lambda it: it.update(platform="\ud800"), "'platform' holds half a character"),
        (lambda it: it.update(complete=1), "complete is neither true nor false"),
        (lambda it: it.update(names="a"), "names is no list of texts"),
        (lambda it: it.update(mappers={}), "mappers and their rules are lists"),
        (lambda it: it["mappers"].append(1), "mappers[2] is no object"),
        (lambda it: it["mappers"][0].update(rules=[]), "mappers[0]: rules is no object"),
        (lambda it: it["mappers"][0]["rules"].update(magic=[]), "mappers[0]: rules: 'magic' is no kind of rule"),
        (lambda it: it["mappers"][0]["rules"].update(prefix=[["a"]]), "mappers[0]: rules: prefix[0] is no rule"),
        (lambda it: it["mappers"][0]["rules"].update(stacked=[["a", "b"]]), "mappers[0]: rules: stacked[0] is no rule"),
        (
            lambda it: it["mappers"][0]["rules"].update(stacked=[["a", "b", 1.5]]),
            "mappers[0]: rules: stacked[0] has a shard that is no text and no number",
        ),
        (
            lambda it: it["mappers"][0]["rules"].update(prefix=[["a", 5]]),
            "mappers[0]: rules: prefix[0] is no text of at most 4,096 characters",
        ),
        (
            lambda it: it["mappers"][0]["rules"].update(regex=[["(", "b"]]),
            "mappers[0]: rules: regex[0] is no regular expression: missing ), unterminated subpattern at position 0",
        ),
        (
            lambda it: it["mappers"][0]["rules"].update(regex=[["zz", r"\7"]]),
            "mappers[0]: rules: regex[0] is no regular expression: invalid group reference 7 at position 1",
        ),
        (lambda it: it["mappers"][0].update(names=[]), "mappers[0]: names is no list of 2 answers"),
        (lambda it: it["mappers"][0].update(with_fp8=1), "mappers[0]: with_fp8 is no list of 2 answers"),
        (lambda it: it["mappers"][0].update(unread=[1]), "mappers[0]: unread is no text of at most 4,096 characters"),
        (lambda it: it.update(methods=[]), "methods is no object"),
        (
            lambda it: it["methods"]["fp8"].update(cache_scale_mapper=2),
            "methods['fp8']: cache_scale_mapper is no position in mappers",
        ),
        (
            lambda it: it["methods"]["fp8"].update(checkpoint_mapper=True),
            "methods['fp8']: checkpoint_mapper is no position in mappers",
        ),
        (
            lambda it: it["methods"]["fp8"].update(ignored_suffixes=".k_scale"),
            "methods['fp8']: ignored_suffixes is no list of texts",
        ),
        (lambda it: it["methods"]["odd"].update(error=1), "methods['odd'] is no text of at most 4,096 characters"),
        (lambda it: it["classes"]["llama.Llama"].pop("source"), "classes['llama.Llama'] has no source"),
        (
            lambda it: it["classes"]["llama.Llama"].update(passes="all"),
            "classes['llama.Llama']: passes is none of class, none, own, other",
        ),
        (
            lambda it: it["architectures"]["Llama"].update({"class": "llama.Other"}),
            "architectures['Llama'] names the class 'llama.Other', which is not there",
        ),
        (
            lambda it: it.update(architectures=dict.fromkeys(map(str, range(50_001)))),
            "architectures has more than 50,000 entries",
        ),
    ],
)  # fmt: skip
def test_a_document_with_one_part_wrong(change: Callable[[dict[str, Any]], object], reason: str) -> None:
    with pytest.raises(NotUnderstoodError) as raised:
        read_probe(changed(change))
    assert str(raised.value) == reason


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", b"\xff", "[" * 200_000])
def test_text_that_is_not_json(text: str | bytes) -> None:
    with pytest.raises(NotUnderstoodError, match="it is not JSON"):
        parse_json(text)


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.version)
def test_every_release_that_was_run_was_probed_too(release: Any) -> None:
    reading = release_reading(release.id)
    assert reading is not None
    assert (reading.version, reading.complete) == (release.version, True)
    assert reading.unread_methods == {}
    assert len(reading.architectures) > 330
    assert len(reading.unread_architectures) <= 21


def test_a_release_that_was_not_probed() -> None:
    assert release_reading("vllm-0.1.0") is None
