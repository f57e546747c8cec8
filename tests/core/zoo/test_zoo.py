from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from core.errors import CancelledError, UsageError
from core.inspection import inspect
from core.progress import Progress
from core.report import report
from core.report.text import one_line
from core.zoo import Asked, Entry, Record, check_all, find_checkpoints, html_table, markdown_table, read_list, summary
from core.zoo.checking import check_one
from tests.core.checkpoint.writing import write

QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
TENSORS = {"model.layers.0.self_attn.k_proj.k_scale": ("F32", ())}


@pytest.fixture
def tree(tmp_path: Path, samples: Path) -> Path:
    """Three checkpoints, one of them broken, among other things."""
    shutil.copytree(samples / QWEN, tmp_path / "b" / "qwen3")
    write(tmp_path / "a10" / "model.safetensors", TENSORS)
    (tmp_path / "a2").mkdir()
    (tmp_path / "a2" / "model.safetensors").write_bytes(b"<html>")
    for name in (".hidden/model.safetensors", "docs/readme.md", "run/optimizer.pt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    return tmp_path


def _paths(tree: Path) -> list[str]:
    return [str(tree / name) for name in ("a2", "a10", "b/qwen3")]


def test_a_tree_s_checkpoints_are_found_in_natural_order(tree: Path) -> None:
    assert find_checkpoints(str(tree)) == _paths(tree)
    assert find_checkpoints(str(tree / "b" / "qwen3")) == [str(tree / "b" / "qwen3")]
    assert find_checkpoints(str(tree / "a10" / "model.safetensors")) == [str(tree / "a10" / "model.safetensors")]
    assert find_checkpoints("hf://org/name") == ["hf://org/name"]


def test_every_sample_is_found(samples: Path) -> None:
    found = find_checkpoints(str(samples))
    assert [Path(path).relative_to(samples).as_posix() for path in found] == sorted(
        path.relative_to(samples).as_posix() for path in samples.glob("*/*/") if any(path.glob("*.safetensors"))
    )


def test_where_nothing_is_found(tree: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_checkpoints(str(tree / "docs"))
    problem = "holds no checkpoint, nor does any folder below it. Check the path."
    assert str(caught.value) == f"{tree / 'docs'}: {problem}"
    with pytest.raises(UsageError) as caught:
        find_checkpoints(str(tree / "none"))
    assert str(caught.value) == f"{tree / 'none'}: does not exist. Check the path."


def test_a_list_has_one_path_a_line(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("# ours\n  hf://org/name \n\n/models/a b\nhf://org/name\n")
    assert read_list(str(file)) == ["hf://org/name", "/models/a b"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"# nothing\n", "names no checkpoint. Write one path or address a line."),
        (b"\xff\xfe", "is not UTF-8 text. Give a text file with one path a line."),
        (None, "does not exist. Give a file with one path a line, or - for stdin."),
    ],
)
def test_lists_that_cannot_be_used(content: bytes | None, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_list(str(file))
    assert str(caught.value) == f"{file}: {sentence}"


def test_a_list_with_a_byte_order_mark_and_odd_names(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes("\ufeff/models/a\r\n /models/b\u2028c\x85\n".encode())
    assert read_list(str(file)) == ["/models/a", "/models/b\u2028c\x85"]


@pytest.mark.parametrize("read", [read_list, lambda file: Record(Path(file), Asked())])
def test_a_device_is_not_read(read: Callable[[str], object]) -> None:
    with pytest.raises(UsageError, match=r"^/dev/full: is not a regular file"):
        read("/dev/full")


def test_a_record_is_no_pipe_and_a_list_may_be_one(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(UsageError, match=f"^{fifo}: is not a regular file"):
        Record(fifo, Asked())
    writer = threading.Thread(target=fifo.write_text, args=("/models/a\n/models/b\n",))
    writer.start()
    assert read_list(str(fifo)) == ["/models/a", "/models/b"]
    writer.join()


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_answer_is_the_one_of_a_single_check(tree: Path, jobs: int) -> None:
    progress = Progress()
    broken, _, qwen = entries = list(check_all(_paths(tree), Asked(), jobs=jobs, progress=progress))
    alone = inspect(tree / "b" / "qwen3")
    assert (qwen.path, qwen.line, qwen.reports) == (_paths(tree)[2], one_line(alone), (report(alone),))
    assert broken.reports == ()
    assert broken.error is not None
    assert broken.line == f"UNREAD   {broken.error}"
    assert "is a web page, saved in place of the file" in broken.error
    assert [entry.sound for entry in entries] == [False, False, True]
    assert (progress.done, progress.total, progress.unit) == (3, 3, "checkpoints")


def test_several_engines_give_a_report_each(tree: Path) -> None:
    asked = Asked(engines=("vllm-0.33.0", "sglang-0.5.23"))
    [entry] = check_all(_paths(tree)[2:], asked)
    assert [answer["engine"]["name"] for answer in entry.reports] == ["vLLM", "SGLang"]
    assert entry.line.startswith("OK ")
    assert entry.line.endswith(" SGLang 0.5.23: DEGRADED.")


def test_a_question_that_nobody_can_answer_is_told_once(tree: Path) -> None:
    with pytest.raises(UsageError, match="has no KV-cache dtype 'int3'"):
        list(check_all(_paths(tree), Asked(kv_cache_dtype="int3"), jobs=1))


def test_a_process_that_dies_costs_one_entry(tree: Path, tmp_path: Path) -> None:
    """A pipe in place of a config would hang; so would a file system. The process that reads it is killed."""
    paths = _paths(tree)
    os.mkfifo(tree / "b" / "qwen3" / "slow.json")
    fifo = tmp_path / "rules.toml"
    os.mkfifo(fifo)
    entries: list[Entry] = []

    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(0.1):
            for child in multiprocessing.active_children():
                child.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        entries += check_all(paths[:2], Asked(rules=str(fifo)), jobs=2)  # opening the pipe waits for a writer
    finally:
        ended.set()
        killer.join()
    assert [entry.error for entry in entries] == [
        f"{path}: the process that judged it died. Check the machine's memory." for path in paths[:2]
    ]


def test_processes_that_die_between_two_entries_cost_none(tree: Path) -> None:
    """The next path cannot be handed out then; those under way are judged anew."""
    paths = _paths(tree) * 4
    entries = check_all(paths, Asked(), jobs=2)
    found = [next(entries)]
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    found += entries
    assert [entry.path for entry in found] == paths
    assert found == [check_one(path, Asked()) for path in _paths(tree)] * 4


def test_cancelling_ends_the_processes(tree: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "rules.toml"
    os.mkfifo(fifo)
    progress = Progress()
    threading.Timer(0.5, progress.cancel).start()
    with pytest.raises(CancelledError):
        list(check_all(_paths(tree), Asked(rules=str(fifo)), jobs=2, progress=progress))
    assert multiprocessing.active_children() == []


def test_a_record_is_read_again(tree: Path, tmp_path: Path) -> None:
    asked, file = Asked(), tmp_path / "zoo.jsonl"
    with Record(file, asked) as record:
        assert [record.entry(path) for path in _paths(tree)] == [None] * 3
        entries = list(check_all(_paths(tree), asked, jobs=1))
        for entry in entries:
            record.add(entry)
    again = Record(file, asked)
    assert [again.entry(path) for path in _paths(tree)] == [None, *entries[1:]]  # what could not be read is tried anew
    other = Record(file, Asked(kv_cache_dtype="fp8"))
    assert [other.entry(path) for path in _paths(tree)] == [None] * 3


def test_a_record_knows_a_checkpoint_by_its_place(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, file = Asked(), tmp_path / "zoo.jsonl"
    monkeypatch.chdir(tree / "b")
    with Record(file, asked) as record:
        [entry] = check_all(["qwen3"], asked, jobs=1)
        record.add(entry)
    shutil.copytree(tree / "a10", tree / "c" / "qwen3")
    assert Record(file, asked).entry("qwen3") == entry
    assert Record(file, asked).entry(str(tree / "b" / "qwen3")) is not None
    monkeypatch.chdir(tree / "c")
    assert Record(file, asked).entry("qwen3") is None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "hf_quant_config.json"])
def test_a_checkpoint_that_changed_is_not_known(name: str, tree: Path, tmp_path: Path) -> None:
    asked, file, [path] = Asked(), tmp_path / "zoo.jsonl", _paths(tree)[2:]
    with Record(file, asked) as record:
        record.add(*check_all([path], asked, jobs=1))
    assert Record(file, asked).entry(path) is not None
    changed = Path(path) / name
    before = changed.stat() if changed.exists() else None
    changed.write_bytes(changed.read_bytes() if before else b"{}")
    if before:
        os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert Record(file, asked).entry(path) is None


def test_other_rules_under_the_same_name_are_another_question(tree: Path, tmp_path: Path) -> None:
    rules, file, [path] = tmp_path / "rules.toml", tmp_path / "zoo.jsonl", _paths(tree)[2:]
    rule = '[[rule]]\nkind = "suffix"\npattern = ".cache_k"\nreplacement = ".attn.k_scale"\n'
    rules.write_text(rule)
    asked = Asked(rules=str(rules))
    with Record(file, asked) as record:
        record.add(*check_all([path], asked, jobs=1))
    assert Record(file, asked).entry(path) is not None
    rules.write_text(rule.replace("_k", "_v"))
    assert Record(file, asked).entry(path) is None


def test_what_changes_while_it_is_read_is_read_again(tree: Path, tmp_path: Path) -> None:
    asked, file, [path] = Asked(), tmp_path / "zoo.jsonl", _paths(tree)[2:]
    with Record(file, asked) as record:
        assert record.entry(path) is None
        [entry] = check_all([path], asked, jobs=1)
        (Path(path) / "config.json").write_text("{}")
        record.add(entry)
    assert Record(file, asked).entry(path) is None


def test_a_record_that_was_torn_goes_on(tree: Path, tmp_path: Path) -> None:
    asked, file = Asked(), tmp_path / "zoo.jsonl"
    [first, second] = check_all(_paths(tree)[1:], asked, jobs=1)
    with Record(file, asked) as record:
        record.add(first)
        record.add(second)
    text = file.read_text()
    file.write_text(text[: len(text) - 100])
    with Record(file, asked) as record:
        assert [record.entry(first.path), record.entry(second.path)] == [first, None]
        record.add(second)
    lines = file.read_text().splitlines()
    assert json.loads(lines[0])["path"] == first.path
    assert json.loads(lines[-1])["path"] == second.path


def test_a_record_of_names_with_other_line_ends(tmp_path: Path) -> None:
    folder, asked, file = tmp_path / "a\u2028b\x85c", Asked(), tmp_path / "zoo.jsonl"
    write(folder / "model.safetensors", {f"layers.0.\x85.\u2028.{name}": form for name, form in TENSORS.items()})
    with Record(file, asked) as record:
        record.add(*check_all([str(folder)], asked, jobs=1))
    plain = json.dumps(json.loads(file.read_text()), ensure_ascii=False)  # as an earlier KVScope wrote it
    file.write_text(f"{plain}\n")
    assert Record(file, asked).entry(str(folder)) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"reports": []}, {"reports": [{}]}, {"reports": None}, {"reports": [None]}, {"path": 3}, {"line": None},
        {"error": 1}, {"asked": []}, {"place": []}, {"schema": []},
    ],
)  # fmt: skip
def test_a_line_that_lacks_something_is_refused(change: dict[str, object], tree: Path, tmp_path: Path) -> None:
    asked, file = Asked(), tmp_path / "zoo.jsonl"
    with Record(file, asked) as record:
        record.add(*check_all(_paths(tree)[2:], asked, jobs=1))
    data = json.loads(file.read_text())
    lines = [{**data, **change}, *({key: data[key] for key in data if key != name} for name in change)]
    for line in lines if "place" not in change else lines[:1]:
        file.write_text(f"{json.dumps(line)}\n")
        with pytest.raises(UsageError, match=r"is no record of an earlier run \(line 1\)\. Name another file"):
            Record(file, asked)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"schema": "other"}\n', "is no record of an earlier run (line 1). Name another file with --resume."),
        (b"[]\n", "is no record of an earlier run (line 1). Name another file with --resume."),
        (b"[" * 100_000 + b"\n{}\n", "is no record of an earlier run (line 1). Name another file with --resume."),
        (b"text\nmore\n", "is no record of an earlier run (line 1). Name another file with --resume."),
        (b"\xff\n", "is no record of an earlier run. Name another file with --resume."),
    ],
)
def test_other_files_are_no_records(content: bytes, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "zoo.jsonl"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        Record(file, Asked())
    assert str(caught.value) == f"{file}: {sentence}"


def test_a_record_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "none" / "zoo.jsonl"
    with pytest.raises(UsageError) as caught, Record(file, Asked()):
        pass
    problem = "cannot be written: No such file or directory. Name another file with --resume."
    assert str(caught.value) == f"{file}: {problem}"
    with pytest.raises(UsageError, match=r"is a folder, not a file\. Name another file with --resume\.$"):
        Record(tmp_path, Asked())


class _Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "p":
            self.rows.append([])

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1] += data


def test_the_tables_hold_every_checkpoint_and_verdict(tree: Path) -> None:
    asked = Asked(engines=("vllm-0.33.0", "sglang-0.5.23"))
    entries = list(check_all(_paths(tree), asked, jobs=1))
    markdown = markdown_table(entries, asked).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in markdown if line.startswith("| ")]
    parser = _Cells()
    parser.feed(html_table(entries, asked))
    assert [[cell.strip() for cell in row] for row in parser.rows if row] == [
        [cell.replace("&lt;", "<") for cell in row] for row in cells
    ]
    assert [row[0] for row in cells] == ["checkpoint", "a2", "a10", "b/qwen3"]
    verdicts = [answer["verdict"] for answer in entries[2].reports]
    assert cells[3][1:5] == ["Qwen3ForCausalLM", "modelopt 0.47.0", "modelopt, cache fp8_e4m3", "72"]
    assert cells[3][5:7] == [f"{verdict['outcome'].upper()} {verdict['text']}" for verdict in verdicts]
    assert cells[1][5].startswith("UNREAD ")


def test_the_sum_counts_outcomes(tree: Path) -> None:
    asked = Asked()
    entries = list(check_all(_paths(tree), asked, jobs=1))
    outcome = entries[1].reports[0]["verdict"]["outcome"].upper()
    assert summary(entries, asked) == f"vLLM 0.33.0: 3 checkpoints: 1 OK, 1 {outcome}, 1 UNREAD"
