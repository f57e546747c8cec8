from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.digest import Row
from app.models.query import parse, quoted
from app.status import Status


def row(
    key: str = "model.layers.3.self_attn.k_proj.k_scale",
    *,
    status: Status = Status.LOADED,
    values: tuple[float, ...] = (0.03,),
    shape: tuple[int, ...] = (),
    dtype: str = "F32",
    role: str = "k",
    layer: int | None = 3,
) -> Row:
    return Row(
        id=key,
        status=status,
        layer=layer,
        role=role,
        kind="scale",
        key=key,
        target="model.layers.3.self_attn.attn.k_scale",
        reached=True,
        dtype=dtype,
        shape=shape,
        values=values,
        convention="modelopt",
        file="model-00001-of-00002.safetensors",
        module="model.layers.3.self_attn",
        reason="",
        scale=None,
        delivery=None,
        attention=None,
    )


@pytest.mark.parametrize(
    ("query", "accepted"),
    [
        ("", True),
        ("k_proj", True),
        ("K_PROJ", True),
        ("attn.k_scale", True),  # the engine's name counts too
        ("k_proj v_proj", False),
        ("k_proj -v_proj", True),
        ("-k_proj", False),
        ('"layers.3.self"', True),
        ('"layers 3"', False),
        ("layer:3", True),
        ("layer:4", False),
        ("layer:0-5", True),
        ("layer:4-5", False),
        ("layer:1,3", True),
        ("layer:>=3", True),
        ("layer:>3", False),
        ("role:k", True),
        ("role:v,q", False),
        ("kind:scale", True),
        ("status:loaded", True),
        ("status:dropped,missing", False),
        ("-status:dropped", True),
        ("dtype:f32", True),
        ("dtype:bf16", False),
        ("shape:scalar", True),
        ("shape:[]", True),
        ("shape:1", False),
        ("value:>0.5", False),
        ("value:<0.5", True),
        ("value:0.03", True),
        ("value:nan", False),
        ("convention:modelopt", True),
        ("file:00001", True),
        ("file:00002-of", False),
        ("problem:missing-scale", True),
        ("problem:other", False),
        ("role:k layer:3 k_proj value:>0.01", True),
    ],
)
def test_terms(query: str, accepted: bool) -> None:
    parsed = parse(query)
    assert parsed.mistaken == ()
    assert parsed.accepts(row(), {"missing-scale"}) is accepted


def test_shapes_and_values_of_scales_per_head() -> None:
    heads = row(shape=(8, 1, 1), values=(0.1, math.nan, 0.7), dtype="BF16")
    assert parse("shape:8x1x1").accepts(heads)
    assert parse("shape:[8,1,1]").accepts(heads)
    assert parse('shape:"8 × 1 × 1"').accepts(heads)  # as the table has it
    assert not parse("shape:8").accepts(heads)
    assert parse("value:>0.5").accepts(heads)
    assert parse("value:nan").accepts(heads)
    assert not parse("value:>1").accepts(heads)


def test_a_status_of_two_words_can_be_written_with_its_beginning() -> None:
    assert parse("status:not").accepts(row(status=Status.NOT_REACHED))
    assert parse('status:"not reached"').accepts(row(status=Status.NOT_REACHED))


def test_rows_without_a_layer_or_value_match_no_number() -> None:
    bare = row(layer=None, values=())
    assert not parse("layer:>=0").accepts(bare)
    assert not parse("value:>=0").accepts(bare)
    assert parse("-layer:>=0").accepts(bare)


def test_an_unknown_field_is_looked_for_as_text_and_explained() -> None:
    parsed = parse("colour:red")
    assert parsed.mistaken == (("colour", "red"),)
    assert not parsed.accepts(row())
    assert parse("colour:red").accepts(row("colour:red"))


@pytest.mark.parametrize("number", ["high", "²"])
@pytest.mark.parametrize("field", ["layer", "shape", "value"])
def test_a_number_that_is_none_is_a_mistake(field: str, number: str) -> None:
    assert parse(f"{field}:{number}").mistaken == ((field, number),)


@pytest.mark.parametrize("field", ["layer", "shape", "value"])
def test_no_row_has_a_number_of_5000_digits(field: str) -> None:
    assert not parse(f"{field}:{'1' * 5000}").accepts(row())


@given(st.text(max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    parsed = parse(text)
    assert parsed.accepts(row(), ()) in (True, False)


@given(st.text(alphabet='abc.*_ ,"0123', min_size=1, max_size=20))
def test_a_quoted_text_is_one_term(text: str) -> None:
    text = text.replace('"', "")
    parsed = parse(quoted(text))
    if text.strip():
        assert [term.text for term in parsed.terms] == [text]
        assert parsed.accepts(row(f"x{text}x"))
