"""Errors: one sentence with file, key and remedy, which can be said in another language."""

from __future__ import annotations

import pickle

import pytest

from core.errors import CancelledError, KVScopeError, UsageError
from core.wording import Sentence, say, spoken
from tests.core.spoken import every_error_spoken, left_in_english

GERMAN = {
    "{message}. {remedy}": "{message}. {remedy}",
    "{where}: {problem}": "{where} {problem}",
    "{path}, key {key!r}": "{path} (Schlüssel {key!r}):",
    "holds {count} numbers": "hat {count} Zahlen",
    "Look again.": "Noch einmal hinsehen.",
}


def test_an_error_names_file_key_and_remedy() -> None:
    error = KVScopeError(say("holds {count} numbers", count=3), path="a/b", key="k", remedy=say("Look again."))
    assert str(error) == "a/b, key 'k': holds 3 numbers. Look again."
    assert spoken(error.message, GERMAN.__getitem__) == "a/b (Schlüssel 'k'): hat 3 Zahlen. Noch einmal hinsehen."
    assert str(KVScopeError("is so", key="k")) == "key 'k': is so"
    assert str(KVScopeError("is so", path="a/b", remedy="Do it")) == "a/b: is so. Do it"
    assert str(KVScopeError("is so.", remedy="Do it.")) == "is so. Do it."
    assert KVScopeError("is so").message == "is so"


def test_a_cancelled_job_is_named() -> None:
    assert str(CancelledError(say("Copying"))) == "Copying was cancelled"
    assert str(CancelledError()) == "the job was cancelled"
    assert left_in_english(CancelledError().message) == []


def test_an_error_travels_between_processes_with_its_sentence() -> None:
    error = UsageError(say("holds {count} numbers", count=3), path="a/b", key="k", remedy=say("Look again."))
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert str(back) == str(error)
    assert isinstance(back.message, Sentence)
    assert left_in_english(back.message) == []


def test_words_without_a_template_are_found() -> None:
    error = KVScopeError("is what no template says", path="a/b")
    assert left_in_english(error.message) == ["is what no template says"]
    assert left_in_english(error.message, but=["is what no template says"]) == []
    quoting = say("names {key!r} in {file}: {error}", key="a b c d", file="/a/b c", error="KeyError: it is not here")
    assert left_in_english(quoting) == []
    with pytest.raises(AssertionError, match="is what no"), every_error_spoken():
        KVScopeError("is what no template says")
