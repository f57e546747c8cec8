"""A TOML file as an out-of-tree backend."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from core.backends.rules_file import read_rules
from core.errors import KVScopeError
from core.naming.patterns import SlowPatternError

GOOD = r"""
name = "acme"
method = "fp8"

[[rule]]
kind = "regex"
pattern = '\.cache_([kv])\.scale$'
replacement = '.attn.\1_scale'

[[rule]]
kind = "suffix"
pattern = ".junk"
drop = true
source = "acme's manual"
"""


KEY = "model.layers.0.self_attn.k_proj.output_scale"


def write(folder: Path, text: str) -> Path:
    path = folder / "acme.toml"
    path.write_text(text)
    return path


def test_read(tmp_path: Path) -> None:
    rules = read_rules(write(tmp_path, GOOD))
    assert (rules.name, rules.method) == ("acme", "fp8")
    assert rules.mapper.map_name("a.cache_k.scale") == "a.attn.k_scale"
    assert rules.mapper.map_name("a.junk") is None
    assert [rule.source for rule in rules.mapper.rules] == ["acme.toml, rule 1", "acme's manual"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rule = [", r"acme.toml: is not TOML: .* Mend it at that place"),
        ("name = 'a'", r"holds no \[\[rule\]\]. Add at least one"),
        ("rule = [3]", r"rule 1 is no table. Begin it with \[\[rule\]\]"),
        ("name = 3\n[[rule]]\nkind = 'regex'", "name and method are texts"),
        ("[[rule]]\nkind = 'glob'\npattern = 'a'", "rule 1 has the kind 'glob'. Choose one of renaming, regex"),
        ("[[rule]]\nkind = 'regex'", "rule 1 has no pattern"),
        ("[[rule]]\nkind = 'regex'\npattern = 'a'", "rule 1 has neither a replacement nor drop = true"),
        (
            "[[rule]]\nkind = 'regex'\npattern = 'a'\nto = 'b'",
            "rule 1 has the unknown field 'to'. Known are drop, kind",
        ),
        ("[[rule]]\nkind = 'stacked'\npattern = 'a'\nreplacement = 'b'\nshard = [1]", "rule 1 has a shard that is no"),
        ("[[rule]]\nkind = 'regex'\npattern = '('\nreplacement = 'b'", r"rule '\(' is not a regular expression"),
        (
            "[[rule]]\nkind = 'regex'\npattern = 'a'\nreplacement = '\\9'",
            r"rule 'a' has a replacement that does not fit it, '\\\\9': invalid group reference 9",
        ),
        (
            "[[rule]]\nkind = 'renaming'\npattern = 'a'\nreplacement = '\\g<zz>'",
            r"rule 'a' has a replacement that does not fit it, '\\\\g<zz>': unknown group name 'zz'",
        ),
        (
            "[[rule]]\nkind = 'regex'\npattern = 'x{99999999999}'\nreplacement = 'b'",
            r"rule 'x\{99999999999\}' is not a regular expression: the repetition number is too large",
        ),
        (
            f"[[rule]]\nkind = 'regex'\npattern = '{'(' * 9999}{')' * 9999}'\nreplacement = 'b'",
            "is not a regular expression: maximum recursion depth exceeded",
        ),
        (f"rule = {'[' * 9999}", "acme.toml: is not TOML: maximum recursion depth exceeded"),
        (f"rule = {'9' * 9999}", "acme.toml: is not TOML: Exceeds the limit"),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_wrong_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(KVScopeError, match=message) as failure:
        read_rules(write(tmp_path, text))
    assert "acme.toml" in str(failure.value)


def test_a_pattern_that_never_ends_is_named_with_its_rule(tmp_path: Path) -> None:
    text = GOOD + "[[rule]]\nkind = 'regex'\npattern = '(\\w|[a-z]|\\.)+\\d$'\nreplacement = ''\n"
    rules = read_rules(write(tmp_path, text))
    with pytest.raises(SlowPatternError) as caught:
        rules.mapper.map_name(KEY)
    assert str(caught.value) == (
        r"acme.toml, rule 3: the pattern '(\\w|[a-z]|\\.)+\\d$' did not come to an end with the name "
        f"{KEY!r} in 1 s. Write it without a repetition inside a repetition"
    )


def test_what_two_libraries_understand_is_asked_of_both(tmp_path: Path) -> None:
    """The rule is matched by another one than Python's own: what only one of them understands is no rule."""
    for pattern, reason in (
        ("[[:alpha:]", "unterminated character set"),
        (r"\p{L}", r"bad escape \\p"),
        (r"a{1}{2}", "multiple repeat"),
    ):
        text = f"[[rule]]\nkind = 'regex'\npattern = '{pattern}'\nreplacement = ''\n"
        with pytest.raises(KVScopeError, match=f"is not a regular expression: {reason}"):
            read_rules(write(tmp_path, text))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(KVScopeError, match=r"none.toml: does not exist. Check the path"):
        read_rules(tmp_path / "none.toml")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(KVScopeError, match="more than the 1,048,576 that KVScope reads of such a file"):
        read_rules(write(tmp_path, "#" * (1 << 21)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_rules_may_come_through_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(GOOD,))
    writer.start()
    assert read_rules(pipe).mapper.rules
    writer.join()
