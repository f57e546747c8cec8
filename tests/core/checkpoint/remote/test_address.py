from __future__ import annotations

import pytest

from core.checkpoint.remote.address import is_address, json_address, parse_address
from core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "shown", "base", "file", "revision", "below"),
    [
        ("hf://org/name", "hf://org/name", "org/name", "", "", ""),
        ("hf://org/name/", "hf://org/name", "org/name", "", "", ""),
        ("HF://models/org/name@v1.0", "hf://org/name@v1.0", "org/name", "", "v1.0", ""),
        ("hf://gpt2", "hf://gpt2", "gpt2", "", "", ""),
        ("hf://org/name@refs/pr/7/fp8", "hf://org/name@refs/pr/7/fp8", "org/name", "", "refs/pr/7", "fp8/"),
        ("hf://org/name@a%2Fb", "hf://org/name@a%2Fb", "org/name", "", "a/b", ""),
        ("hf://org/name/a/b.safetensors", "hf://org/name/a/b.safetensors", "org/name", "b.safetensors", "", "a/"),
        ("hf://org/name.git@v1", "hf://org/name@v1", "org/name", "", "v1", ""),
        ("hf://org/a-b.c_", "hf://org/a-b.c_", "org/a-b.c_", "", "", ""),
        ("https://huggingface.co/org/name.git", "hf://org/name", "org/name", "", "", ""),
        ("https://huggingface.co/org/name", "hf://org/name", "org/name", "", "", ""),
        ("https://huggingface.co/org/name/tree/v2/a", "hf://org/name@v2/a", "org/name", "", "v2", "a/"),
        ("https://hf.co/org/name/blob/main/m.safetensors", "hf://org/name@main/m.safetensors", "org/name", "m.safetensors", "main", ""),
    ],
)  # fmt: skip
def test_a_model_on_the_hub(text: str, shown: str, base: str, file: str, revision: str, below: str) -> None:
    found = parse_address(text)
    assert (found.kind, found.shown, found.base, found.file, found.revision, found.below) == (
        "hub", shown, base, file, revision, below
    )  # fmt: skip


def test_a_hub_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.local:8080")
    assert parse_address("http://hub.local:8080/org/name").kind == "hub"
    assert parse_address("http://hub.local/org/name").kind == "web"


@pytest.mark.parametrize(
    ("text", "kind", "shown", "base", "file", "query"),
    [
        ("https://h/a/m.safetensors", "web", "https://h/a/m.safetensors", "https://h/a", "m.safetensors", ""),
        ("https://h/a/x.safetensors.index.json?sig=1", "web", "https://h/a/x.safetensors.index.json", "https://h/a", "x.safetensors.index.json", "sig=1"),
        ("https://me:pass@h:1/a/", "web", "https://h:1/a", "https://me:pass@h:1/a", "", ""),
        ("s3://bucket/a/b", "bucket", "s3://bucket/a/b", "s3://bucket/a/b", "", ""),
        ("gs://bucket/m.safetensors", "bucket", "gs://bucket/m.safetensors", "gs://bucket", "m.safetensors", ""),
        ("sftp://me:pass@h/a", "bucket", "sftp://h/a", "sftp://me:pass@h/a", "", ""),
        ("zip://a::s3://b/c.zip", "bucket", "zip://a::s3://b/c.zip", "zip://a::s3://b/c.zip", "", ""),
    ],
)  # fmt: skip
def test_other_places(text: str, kind: str, shown: str, base: str, file: str, query: str) -> None:
    found = parse_address(text)
    assert (found.kind, found.shown, found.base, found.file, found.query) == (kind, shown, base, file, query)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hf://", "'hf://': is no address of a model. Write hf://ORG/NAME, or hf://ORG/NAME@REVISION"),
        ("hf://org/na me", "'hf://org/na me': is no address of a model. Write hf://ORG/NAME, or hf://ORG/NAME@REVISION"),
        ("hf://org/name@", "'hf://org/name@': is no address of a model. Write hf://ORG/NAME, or hf://ORG/NAME@REVISION"),
        ("hf://org/name/../x", "'hf://org/name/../x': is no address of a model. Write hf://ORG/NAME, or hf://ORG/NAME@REVISION"),
        ("hf://datasets/a/b", "hf://datasets/a/b: is a dataset, not a model. Write hf://ORG/NAME, or hf://ORG/NAME@REVISION"),
        ("https://huggingface.co/a/b/discussions", "https://huggingface.co/a/b/discussions: is a page of the hub that holds no model's files. Write hf://ORG/NAME, or hf://ORG/NAME@REVISION"),
        ("https:///a", "'https:///a': names no server. Write https://host/path/model.safetensors"),
        ("https://h:99999/a", "'https://h:99999/a': names no server. Write https://host/path/model.safetensors"),
        ("https://h/a/..%2F..%2Fm.safetensors", "https://h/a/..%2F..%2Fm.safetensors: names no file in a folder. Write https://host/path/model.safetensors"),
        ("https://h/a/%0Am.safetensors", "https://h/a/%0Am.safetensors: names no file in a folder. Write https://host/path/model.safetensors"),
        ("https://[x/a", "'https://[x/a': names no server. Write https://host/path/model.safetensors"),
    ],
)  # fmt: skip
def test_what_is_no_address(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("text", "shown", "base", "below", "file"),
    [
        ("hf://org/name@v1/a/b.json", "hf://org/name@v1/a/b.json", "org/name", "a/", "b.json"),
        ("https://hf.co/org/name/resolve/main/b.JSON", "hf://org/name@main/b.JSON", "org/name", "", "b.JSON"),
        ("https://me:pass@h/a/b%20c.json?sig=1", "https://h/a/b%20c.json", "https://me:pass@h/a", "", "b c.json"),
        ("s3://bucket/b.json", "s3://bucket/b.json", "s3://bucket", "", "b.json"),
    ],
)
def test_a_json_file_alone(text: str, shown: str, base: str, below: str, file: str) -> None:
    found = json_address(text)
    assert found is not None
    assert (found.shown, found.base, found.below, found.file) == (shown, base, below, file)


def test_what_is_no_json_file_alone() -> None:
    for text in (
        "hf://org/name.json",
        "hf://org/name/a",
        "https://h/x.safetensors.index.json",
        "https://h/a.safetensors",
    ):
        assert json_address(text) is None
    with pytest.raises(UsageError) as chain:
        json_address("zip://a.json::s3://b/c.zip")
    assert str(chain.value) == (
        "zip://a.json::s3://b/c.zip: is a file in a chain of file systems, of which checkpoints alone are read. "
        "Download the file and name it."
    )
    with pytest.raises(UsageError) as outside:
        json_address("https://h/a/..%2Fb.json")
    assert str(outside.value) == (
        "https://h/a/..%2Fb.json: names no file in a folder. Write https://host/path/model.safetensors"
    )


@pytest.mark.parametrize("name", ["a--b", "a..b", "x.", "x-", ".git", "a.git.git", "a" * 97])
def test_names_that_the_hub_gives_to_none(name: str) -> None:
    for text in (f"hf://org/{name}", f"hf://{name}", f"https://hf.co/{name}/b"):
        with pytest.raises(UsageError, match=r"is no address of a model\. Write hf://ORG/NAME"):
            parse_address(text)


def test_paths_of_this_machine_are_no_addresses() -> None:
    assert [is_address(text) for text in ("a/b", "C:\\models", "/a/hf:/b", "./x://", "hf:/a/b")] == [False] * 5
    assert is_address("s3://a") and is_address("zip::s3://a")  # noqa: PT018
