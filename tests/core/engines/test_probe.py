"""The probe as it is used: the script in a process of its own, in environments that are small, broken or hostile."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from core.engines.probe import is_too_old, number_of, probe
from core.engines.probed import LIMIT, ProbedEngine
from core.engines.saved import data_folder, load_installed, save, saved_file
from core.errors import CancelledError, KVScopeError, UsageError
from core.naming.mapper import WeightsMapper
from core.progress import Progress
from tests.core.engines.fake_vllm import environment, program

VLLM = "vllm/__init__.py"
LLAMA = "vllm/model_executor/models/llama.py"
ODD = "vllm/model_executor/models/odd.py"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> ProbedEngine:
    """The fake package, as the probe reads it."""
    return probe(environment(tmp_path_factory.mktemp("environment")))


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the probed engine, in a data folder of this test's own."""
    monkeypatch.setenv("KVSCOPE_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "engines" / "installed.json"


def rows(mapper: WeightsMapper) -> list[tuple[str, str, str | None, object]]:
    return [(rule.kind.value, rule.pattern, rule.replacement, rule.shard) for rule in mapper.rules]


def refused(python: Path | str, *, timeout: float = 60, error: type[KVScopeError] = KVScopeError) -> str:
    """The message of the error that the probe ends with."""
    with pytest.raises(error) as raised:
        probe(python, timeout=timeout)
    assert type(raised.value) is error
    return str(raised.value)


# --------------------------------------------------------------------------------------------------------- what is read
def test_version_and_platform(engine: ProbedEngine) -> None:
    assert (engine.version, engine.reading.platform, engine.reading.complete) == ("0.33.0", "FakePlatform", True)
    assert engine.reading.python_version.startswith("3.")
    assert engine.date.endswith("+00:00")


def test_methods_with_their_rules(engine: ProbedEngine) -> None:
    methods = engine.reading.methods
    assert list(methods) == ["fp8", "asked", "plugin"]
    fp8 = methods["fp8"]
    assert fp8.config_class == "quantization.Fp8Config"
    assert fp8.cache_scales is not None
    assert rows(fp8.cache_scales.mapper) == [
        ("regex", r"(?i)\.kv_scale$", ".attn.k_scale", None),  # the flag of the compiled pattern is kept
        ("suffix", ".k_proj.output_scale", ".attn.k_scale", None),
    ]
    assert fp8.checkpoint is not None
    assert rows(fp8.checkpoint.mapper) == [("suffix", ".g_idx", None, None)]
    assert fp8.ignored_suffixes == (".k_scale", ".v_scale")
    assert fp8.cache_scales.disagreements == ()


def test_a_method_without_a_mapper_is_read_too(engine: ProbedEngine) -> None:
    asked = engine.reading.methods["asked"]
    assert (asked.cache_scales, asked.ignored_suffixes, asked.asks_cache_scale) == (None, (), True)


def test_methods_that_plugins_register_are_there(engine: ProbedEngine) -> None:
    plugin = engine.reading.methods["plugin"]
    assert plugin.cache_scales is not None
    assert len(plugin.cache_scales.mapper.rules) == 1


def test_a_method_that_raises_costs_only_itself(engine: ProbedEngine) -> None:
    assert engine.reading.unread_methods == {"broken": "RuntimeError: no rules today"}


@pytest.mark.parametrize(
    ("cls", "passes", "written"),
    [
        ("llama.LlamaModel", "class", "llama.LlamaModel"),
        ("llama.LlamaForCausalLM", "none", "llama.LlamaForCausalLM"),
        ("llama.ChildForCausalLM", "none", "llama.ChildForCausalLM"),
        ("llama.InheritingForCausalLM", "none", "llama.ChildForCausalLM"),
        ("llama.OwnForCausalLM", "own", "llama.OwnForCausalLM"),
        ("llama.OtherForCausalLM", "other", "llama.OtherForCausalLM"),
        ("changed.ChangedForCausalLM", "other", "changed.ChangedForCausalLM"),
    ],
)
def test_what_a_class_hands_to_its_loader(engine: ProbedEngine, cls: str, passes: str, written: str) -> None:
    found = engine.reading.classes[cls]
    assert (found.passes, found.written) == (passes, written)
    assert len(found.source) == 16


def test_stacked_rules_keep_their_shards(engine: ProbedEngine) -> None:
    mapper = engine.reading.classes["llama.LlamaModel"].handed
    assert mapper is not None
    assert rows(mapper) == [("stacked", ".q_proj", ".qkv_proj", "q"), ("stacked", ".w", ".v", "[0, 1]")]


def test_the_digest_does_not_see_comments_and_blank_lines(engine: ProbedEngine, tmp_path: Path) -> None:
    text = (environment(tmp_path).parent.parent / "packages" / LLAMA).read_text()
    plain = text.replace("    # A comment is no code.\n", "").replace("(self, weights):\n\n", "(self, weights):\n")
    assert plain != text
    same = probe(environment(tmp_path / "plain", {LLAMA: plain})).reading.classes
    other = probe(environment(tmp_path / "other", {LLAMA: text.replace("return super()", "return  super()")}))
    name = "llama.ChildForCausalLM"
    assert same[name] == engine.reading.classes[name] != other.reading.classes[name]


def test_architectures_and_why_some_could_not_be_read(engine: ProbedEngine) -> None:
    assert engine.reading.architectures["InheritingForCausalLM"] == "llama.InheritingForCausalLM"
    assert engine.reading.unread_architectures == {
        "AbsentForCausalLM": "AttributeError: module 'vllm.model_executor.models.llama' has no attribute "
        "'AbsentForCausalLM'",
        "OddForCausalLM": "RuntimeError: hub offline: 1",  # and the network is off in there
    }


def test_an_environments_folder_stands_for_its_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    assert probe(tmp_path.name).version == "0.33.0"


def test_variables_of_this_process_stay_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_MINE", "x")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    asking = (
        'import os\nraise RuntimeError(",".join(sorted(os.environ)) + os.environ.get("CUDA_VISIBLE_DEVICES", ""))\n'
    )
    told = probe(environment(tmp_path, {ODD: asking})).reading.unread_architectures["OddForCausalLM"]
    assert "SECRET_OF_MINE" not in told
    assert told.endswith("7")


def test_rules_of_an_unknown_kind_are_told(tmp_path: Path) -> None:
    utils = "vllm/model_executor/models/utils.py"
    text = (environment(tmp_path).parent.parent / "packages" / utils).read_text()
    changed = text.replace(
        "    def __or__", '    orig_to_new_magic: dict = field(default_factory=lambda: {"a": "b"})\n\n    def __or__'
    )
    fp8 = probe(environment(tmp_path / "new", {utils: changed})).reading.methods["fp8"]
    assert fp8.cache_scales is not None
    assert fp8.cache_scales.unread == ("orig_to_new_magic",)


def test_rules_that_vllm_applies_in_another_way_are_told(tmp_path: Path) -> None:
    utils = "vllm/model_executor/models/utils.py"
    text = (environment(tmp_path).parent.parent / "packages" / utils).read_text()
    changed = text.replace("name = name[: -len(old)] + new", "name = name + new")
    fp8 = probe(environment(tmp_path / "new", {utils: changed})).reading.methods["fp8"]
    assert fp8.cache_scales is not None
    name = "model.layers.0.self_attn.k_proj.output_scale"
    assert fp8.cache_scales.disagreements[0] == (name, f"{name}.attn.k_scale", "model.layers.0.self_attn.attn.k_scale")


# ------------------------------------------------------------------------------------------------------------ accidents
def test_an_import_that_ends_the_process_is_left_out(tmp_path: Path) -> None:
    reading = probe(environment(tmp_path, {ODD: "import os\nos.kill(os.getpid(), 11)\n"})).reading
    assert reading.unread_architectures["OddForCausalLM"] == "left out, because its import ended the process"
    assert "LlamaForCausalLM" in reading.architectures


def test_an_import_that_hangs_costs_what_comes_after_it(tmp_path: Path) -> None:
    started = time.monotonic()
    reading = probe(environment(tmp_path, {LLAMA: "import time\ntime.sleep(60)\n"}), timeout=2).reading
    assert time.monotonic() - started < 40
    assert not reading.complete
    assert "fp8" in reading.methods
    assert reading.architectures == {}


def test_progress_counts_modules(tmp_path: Path) -> None:
    progress = Progress()
    probe(environment(tmp_path), progress=progress)
    assert (progress.done, progress.total, progress.unit) == (2, 3, "modules")


def test_a_cancelled_probe_leaves_no_process(tmp_path: Path) -> None:
    python = environment(
        tmp_path,
        {VLLM: f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n"},
    )

    class Impatient(Progress):
        """Stops as soon as the process runs."""

        def check(self) -> None:
            if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
                self.cancel()
            super().check()

    with pytest.raises(CancelledError, match="Reading the installed vLLM was cancelled"):
        probe(python, progress=Impatient())
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


# --------------------------------------------------------------------------------------------------------------- errors
def test_no_such_python(tmp_path: Path) -> None:
    path = tmp_path / "nothing"
    expected = f"{path}: there is no such Python. Name the environment's bin/python"
    assert refused(path, error=UsageError) == expected


def test_a_folder_without_a_python(tmp_path: Path) -> None:
    expected = f"{tmp_path}: is a folder without a Python. Name an environment, or its bin/python"
    assert refused(tmp_path, error=UsageError) == expected


@pytest.mark.parametrize(("mode", "reason"), [(0o644, "Permission denied"), (0o755, "Exec format error")])
def test_a_file_that_is_no_program(tmp_path: Path, mode: int, reason: str) -> None:
    path = tmp_path / "python"
    path.write_text("nothing that runs")
    path.chmod(mode)
    expected = f"{path}: cannot be run: {reason}. Name the environment's bin/python"
    assert refused(path, error=UsageError) == expected


@pytest.mark.parametrize("timeout", [0, -1, 0.5, float("nan")])
def test_no_time(tmp_path: Path, timeout: float) -> None:
    expected = f"{timeout:g} s is no time limit. Give at least one second"
    assert refused(tmp_path, timeout=timeout, error=UsageError) == expected


def test_no_vllm_there(tmp_path: Path) -> None:
    python = environment(
        tmp_path, {VLLM: None, "vllm/model_executor/__init__.py": None, "vllm/plugins/__init__.py": None}
    )
    for path in sorted((tmp_path / "packages" / "vllm").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "packages" / "vllm").rmdir()
    assert refused(python) == (
        f"{python}: vLLM cannot be imported there: ModuleNotFoundError: No module named 'vllm'. Name the Python with "
        "which `import vllm` works"
    )


def test_a_vllm_that_does_not_parse(tmp_path: Path) -> None:
    python = environment(tmp_path, {VLLM: "def broken(:\n"})
    assert refused(python) == (
        f"{python}: vLLM cannot be imported there: SyntaxError: invalid syntax (__init__.py, line 1). Name the "
        "Python with which `import vllm` works"
    )


def test_a_vllm_without_the_parts_that_are_read(tmp_path: Path) -> None:
    python = environment(tmp_path, {"vllm/platforms/__init__.py": ""})
    assert refused(python) == (
        f"{python}: vLLM 0.33.0 cannot be read: ImportError: cannot import name 'current_platform' from "
        "'vllm.platforms'. Choose the built-in profile of the nearest version instead: `kvscope engines` lists them"
    )


@pytest.mark.parametrize("parts", [{}, {"vllm/platforms/__init__.py": ""}], ids=["readable", "unreadable"])
def test_a_vllm_that_is_too_old(tmp_path: Path, parts: dict[str, str | None]) -> None:
    python = environment(tmp_path, {VLLM: '__version__ = "0.11.2"\n', **parts})
    assert refused(python) == (
        f"{python}: vLLM 0.11.2 is too old: KVScope knows vLLM from 0.22.1 on. Name an environment with a newer vLLM"
    )


def test_a_vllm_whose_import_hangs(tmp_path: Path) -> None:
    python = environment(tmp_path, {VLLM: "import time\ntime.sleep(60)\n"})
    # What is left of the limit when the import begins depends on the machine.
    said = refused(python, timeout=10)
    assert said.startswith(f"{python}: vLLM was not imported within ")
    assert said.endswith(" s. Give it more time with --timeout SECONDS")


def test_a_program_that_never_ends(tmp_path: Path) -> None:
    started = time.monotonic()
    python = program(tmp_path, "exec sleep 60\n")
    assert refused(python, timeout=1) == (
        f"{python}: vLLM was not read within 1 s. Give it more time with --timeout SECONDS"
    )
    assert time.monotonic() - started < 40


def test_what_a_program_started_ends_with_it(tmp_path: Path) -> None:
    python = program(tmp_path, f'sleep 60 &\necho $! > "{tmp_path / "pid"}"\nwait\n')
    refused(python, timeout=1)
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and _runs(child):
        time.sleep(0.02)
    assert not _runs(child)


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_endless_output(tmp_path: Path) -> None:
    python = program(tmp_path, "exec yes\n")
    assert refused(python) == (
        f"{python}: printed more than {LIMIT >> 20} MiB, which is no answer of vLLM's. Check that this is a Python "
        "with vLLM"
    )


def test_endless_complaints(tmp_path: Path) -> None:
    python = program(tmp_path, "exec yes >&2\n")
    assert refused(python).startswith(f"{python}: printed more than 64 MiB")


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("", "it is not JSON"),
        ("hello", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ('{"a": NaN}', "NaN is no JSON number"),
        ("[]", "the document is no object"),
        ('{"schema": "kvscope.probe/1"}', "the document has no vllm"),
    ],
)
def test_output_that_is_no_answer(tmp_path: Path, output: str, reason: str) -> None:
    (tmp_path / "output").write_text(output)
    python = program(tmp_path, f'cat "{tmp_path / "output"}"\n')
    assert refused(python) == (
        f"{python}: what it printed is not understood: {reason}. Check that this is the Python that vLLM is installed "
        "for"
    )


@pytest.mark.parametrize(
    ("body", "how"),
    [
        ("echo what is this >&2; exit 3", "status 3: what is this"),
        ("exit 1", "status 1: it printed nothing"),
        ("kill -9 $$", "SIGKILL: it printed nothing"),
    ],
)
def test_a_program_that_fails(tmp_path: Path, body: str, how: str) -> None:
    python = program(tmp_path, f"{body}\n")
    assert refused(python) == (
        f"{python}: the script that reads vLLM ended with {how}. Check that this is a working Python 3.10 or newer"
    )


def test_output_that_is_no_text(tmp_path: Path) -> None:
    python = program(tmp_path, "printf '\\377\\376\\377'\n")
    assert "what it printed is not understood: it is not JSON" in refused(python)


def test_module_after_module_that_ends_the_process(tmp_path: Path) -> None:
    python = program(tmp_path, "echo kvscope-probe 1/9 vllm.x.$$ >&2; kill -11 $$\n")
    assert "the script that reads vLLM ended with SIGSEGV" in refused(python)


@pytest.mark.parametrize(
    ("version", "number", "old"),
    [
        ("0.33.0", (0, 33), False),
        ("0.33.1rc2.dev5+gabcdef.cu129", (0, 33), False),
        ("1.0.0", (1, 0), False),
        ("0.22.0", (0, 22), False),
        ("0.21.9", (0, 21), True),
        ("0.1.dev9875+g12ab34c", None, False),
        ("dev", None, False),
    ],
)
def test_versions(version: str, number: tuple[int, int] | None, old: bool) -> None:
    assert (number_of(version), is_too_old(version)) == (number, old)


# ----------------------------------------------------------------------------------------------------------------- kept
def test_what_is_kept_is_what_was_read(engine: ProbedEngine, kept: Path) -> None:
    assert load_installed() is None
    assert save(engine) == saved_file() == kept
    assert load_installed() == engine
    assert [path.name for path in kept.parent.iterdir()] == ["installed.json"]
    assert json.loads(kept.read_text())["schema"] == "kvscope.installed/1"


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"KVSCOPE_DATA": "/data"}, "/data"),
        ({"XDG_DATA_HOME": "/xdg"}, "/xdg/kvscope"),
        ({"XDG_DATA_HOME": "relative", "HOME": "/me"}, "/me/.local/share/kvscope"),
        ({"HOME": "/me"}, "/me/.local/share/kvscope"),
    ],
)
def test_where_it_is_kept(variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KVSCOPE_DATA", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert data_folder() == Path(folder)


def test_a_folder_that_cannot_be_written(engine: ProbedEngine, kept: Path) -> None:
    kept.parent.parent.write_text("a file where the folder should be")
    with pytest.raises(KVScopeError) as raised:
        save(engine)
    assert str(raised.value) == (
        f"{kept}: cannot be written: Not a directory. Name a folder that can be written to with KVSCOPE_DATA"
    )


def test_a_write_that_fails_leaves_the_old_file(
    engine: ProbedEngine, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(engine)
    before = kept.read_bytes()

    def full(_path: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(KVScopeError, match="No space left on device"):
        save(engine)
    assert kept.read_bytes() == before
    assert [path.name for path in kept.parent.iterdir()] == ["installed.json"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda _: "{", "it is not JSON"),
        (lambda _: "[]", "its schema is not kvscope.installed/1"),
        (lambda saved: {**saved, "schema": "kvscope.installed/9"}, "its schema is not kvscope.installed/1"),
        (lambda saved: {**saved, "python": 3}, "python, date and probe are not all there"),
        (lambda saved: {**saved, "probe": None}, "python, date and probe are not all there"),
        (
            lambda saved: {**saved, "probe": {**saved["probe"], "vllm": 33}},
            "vllm is no text of at most 4,096 characters",
        ),
        (lambda _: " " * (LIMIT + 70_000), "it is too large"),
    ],
)
def test_a_kept_file_that_is_damaged(engine: ProbedEngine, kept: Path, change: Any, reason: str) -> None:
    save(engine)
    changed = change(json.loads(kept.read_text()))
    kept.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(KVScopeError) as raised:
        load_installed()
    assert str(raised.value) == (f"{kept}: is no saved engine: {reason}. Run `kvscope probe --python PATH` again")


def test_a_kept_file_that_is_a_folder(kept: Path) -> None:
    kept.mkdir(parents=True)
    with pytest.raises(KVScopeError) as raised:
        load_installed()
    assert str(raised.value) == f"{kept}: cannot be read: Is a directory. Run `kvscope probe --python PATH` again"
