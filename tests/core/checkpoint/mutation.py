"""Damages headers, index files and archives in the ways in which files get damaged, and in those of an attacker."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

NUMBERS = [
    0,
    1,
    -1,
    2,
    7,
    255,
    2**31,
    2**32,
    2**53 + 1,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    10**30,
    1.0,
    0.5,
    1e300,
]
VALUES: list[Any] = [
    *NUMBERS,
    None,
    True,
    "",
    "F32",
    "__metadata__",
    [],
    {},
    [0],
    [[0, 1]],
    {"dtype": "F32"},
    "\ud800",
    "\0",
]
TOKENS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"\\",
    b"0",
    b"-",
    b".",
    b"e9",
    b"null",
    b"NaN",
    b"\0",
    b"\xff",
    b" ",
]
TOKENS += [
    b"[" * 3000,
    b'{"a":' * 3000,
    b"9" * 5000,
    b'"dtype":"F4",',
    b'"__metadata__":{},',
    b"\\ud800",
    b"\n",
    b"\xc3",
]


def flip(text: bytes, random: Random) -> bytes:
    damaged = bytearray(text)
    for _ in range(random.choice([1, 1, 2, 8])):
        if damaged:
            damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
    return bytes(damaged)


def cut(text: bytes, random: Random) -> bytes:
    return text[: random.randrange(len(text) + 1)]


def drop(text: bytes, random: Random) -> bytes:
    begin = random.randrange(len(text) + 1)
    return text[:begin] + text[begin + random.choice([1, 3, 40, 400]) :]


def repeat(text: bytes, random: Random) -> bytes:
    begin = random.randrange(len(text) + 1)
    piece = text[begin : begin + random.choice([1, 5, 100, 1000])]
    return text[:begin] + piece + text[begin:]


def insert(text: bytes, random: Random) -> bytes:
    at = random.choice([0, len(text), random.randrange(len(text) + 1)])
    return text[:at] + random.choice(TOKENS) + text[at:]


def number(text: bytes, random: Random) -> bytes:
    found = list(re.finditer(rb"[0-9]+", text))
    if not found:
        return text
    match = random.choice(found)
    near = int(match.group()[:18]) + random.choice([-8, -1, 1, 8])
    return text[: match.start()] + str(random.choice([near, near, *NUMBERS])).encode() + text[match.end() :]


def entry_again(text: bytes, random: Random) -> bytes:
    """A key, with all that belongs to it, a second time."""
    entries = re.findall(rb'"[^"]+":\{[^{}]*\}', text)
    return b"{" + random.choice(entries) + b"," + text[1:] if entries else text


def tree(text: bytes, random: Random) -> bytes:
    """A change to the JSON itself: another value, another key, a missing one, swapped offsets."""
    try:
        root = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(root, dict) or not root:
        return text
    for _ in range(random.choice([1, 1, 3])):
        _change(root, random)
    return json.dumps(root, separators=random.choice([(",", ":"), (", ", ": ")])).encode()


def _change(root: dict[str, Any], random: Random) -> None:
    key = random.choice(list(root) or [""])
    inner = root.get(key)
    if not isinstance(inner, dict) or not inner or random.random() < 0.2:
        root[random.choice([key, "", "x" * 300, "__metadata__", "\ud800"])] = deepcopy(random.choice(VALUES))
        return
    field = random.choice(list(inner))
    value = inner[field]
    if isinstance(value, list) and value and random.random() < 0.7:
        at = random.randrange(len(value))
        value[at] = deepcopy(random.choice([*VALUES, value[at - 1], value[at - 1]]))
        if random.random() < 0.3:
            value.reverse()
    elif random.random() < 0.3:
        del inner[field]
    else:
        inner[field] = deepcopy(random.choice([*VALUES, "F64", "F4", "I3", "BF16"]))


MUTATIONS: list[Callable[[bytes, Random], bytes]] = [
    flip,
    cut,
    drop,
    repeat,
    insert,
    number,
    number,
    entry_again,
    tree,
    tree,
]


def mutated(text: bytes, random: Random) -> bytes:
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        text = random.choice(MUTATIONS)(text, random)
    return text
