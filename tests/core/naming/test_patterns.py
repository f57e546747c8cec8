"""Patterns that somebody else wrote."""

from __future__ import annotations

import subprocess
import sys

import pytest

from core.naming.patterns import SlowPatternError, begins, check_pattern, found_in, replaced

NEVER = r"(\w|[a-z]|\.)+\d$"
NAME = "model.layers.0.self_attn.k_proj.k_scale"


def test_they_match_as_those_of_python() -> None:
    assert found_in(r"\.k_scale$", NAME)
    assert not found_in(r"^k_scale$", NAME)
    assert begins("model", NAME)
    assert not begins("layers", NAME)
    assert replaced(r"([kv])_proj\.", r"\1.", NAME) == "model.layers.0.self_attn.k.k_scale"
    assert replaced("l", "", NAME, count=1) == "mode.layers.0.self_attn.k_proj.k_scale"


@pytest.mark.parametrize("ask", [found_in, begins, lambda pattern, name: replaced(pattern, "", name)])
def test_one_that_never_ends_is_stopped(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(SlowPatternError, match="did not come to an end with the name"):
        ask(NEVER, NAME)


@pytest.mark.parametrize("pattern", ["(", "[a", "a{1}{2}"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="position"):
        check_pattern(pattern)


def test_a_copy_of_the_core_matches_without_the_library() -> None:
    script = (
        "import sys; sys.modules['regex'] = None; "
        "from core.naming.patterns import begins, check_pattern; print(begins('a+', 'aa'));\n"
        "try: check_pattern('(')\nexcept ValueError as error: print(error)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == ["True", "missing ), unterminated subpattern at position 0"]
