"""The house around the code: packaging, pins, what is tracked, what is imported, what the README promises."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from app import cli, entry
from app.cli import main
from core import __version__
from resources import resource
from tests.places import CHECKPOINTS, REPOSITORY, SAMPLES, checkpoint_folders

TOP_LEVEL = {
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "DECISIONS.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "app",
    "constraints.txt",
    "core",
    "pyproject.toml",
    "resources",
    "tests",
}
MAX_TRACKED_BYTES = 2 * 1024 * 1024
PATHS_OF_ONE_MACHINE = r"(^|[^[:alnum:]_.-])/(work|root|tmp|home/[a-z]+|Users/[A-Za-z]+)(/|$|[^[:alnum:]_/-])"
REGISTRY_HOSTS = r"pypi[.]org|pythonhosted[.]|download[.]pytorch[.]|deb[.]debian|[-][-](extra-)?index[-]url"


def _git(*arguments: str, allowed: tuple[int, ...] = (0,)) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode in allowed, done.stderr
    return done.stdout.splitlines()


def _pins() -> dict[str, Version]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(len(pin.specifier) == 1 and str(pin.specifier).startswith("==") for pin in pins)
    return {canonicalize_name(pin.name): Version(str(pin.specifier).removeprefix("==")) for pin in pins}


def _required(name: str, extras: frozenset[str], seen: set[str]) -> set[str]:
    """Names of every distribution that ``name`` needs here, with ``extras``, at any depth."""
    for line in importlib.metadata.requires(name) or []:
        need = Requirement(line)
        needed = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras | {""})
        if needed and (found := canonicalize_name(need.name)) not in seen:
            seen.add(found)
            _required(found, frozenset(need.extras), seen)
    return seen


def test_constraints_pin_every_dependency_at_any_depth() -> None:
    needed = _required("kvscope", frozenset({"dev"}), set())
    pinned_by_torch = {name for name in needed if name.startswith(("nvidia-", "cuda-", "triton"))}
    assert needed - pinned_by_torch == _pins().keys()


def test_constraints_lie_in_the_ranges_of_pyproject_and_fit_any_machine() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pins = _pins()
    for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        need = Requirement(line)
        assert pins[canonicalize_name(need.name)] in need.specifier, line
    assert [name for name, version in pins.items() if version.local] == []


def test_tests_run_with_the_pinned_versions() -> None:
    installed = {name: Version(importlib.metadata.version(name)) for name in _pins()}
    assert {name: Version(version.public) for name, version in installed.items()} == _pins()


def test_top_level_holds_only_what_belongs_there() -> None:
    assert {line.split("/")[0] for line in _git("ls-files")} == TOP_LEVEL


def test_no_tracked_file_is_large() -> None:
    files = [REPOSITORY / line for line in _git("ls-files")]
    assert [path for path in files if path.is_file() and path.stat().st_size > MAX_TRACKED_BYTES] == []


@pytest.mark.parametrize("pattern", [PATHS_OF_ONE_MACHINE, REGISTRY_HOSTS], ids=["paths", "registries"])
def test_no_tracked_file_speaks_of_one_machine(pattern: str) -> None:
    assert _git("grep", "-nIE", pattern, "--", ".", ":!LICENSE", allowed=(0, 1)) == []


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## \[(.+?)\]", (REPOSITORY / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert versions[0] == __version__ == importlib.metadata.version("kvscope")


def test_the_command_is_installed_and_tells_its_version() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="kvscope")
    assert script.load() is entry.main
    command = Path(sys.executable).with_name("kvscope")
    told = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert told.stdout == f"kvscope {__version__}\n"


def _loaded_by(modules: list[str]) -> set[str]:
    """Top-level modules in a fresh interpreter that imported ``modules``."""
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]; print(*sys.modules)"
    command = [sys.executable, "-c", code, *modules]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stdout.split()}


def test_core_without_its_loader_needs_neither_torch_nor_qt() -> None:
    files = [path.relative_to(REPOSITORY).with_suffix("") for path in (REPOSITORY / "core").rglob("*.py")]
    names = sorted(".".join(path.parts).removesuffix(".__init__") for path in files)
    light = [name for name in names if not re.match(r"core[.]loading\b", name)]
    assert len(light) >= 10
    assert _loaded_by(light) & {"torch", "PySide6", "shiboken6", "pyqtgraph", "app"} == set()


def test_the_command_line_starts_without_qt_and_torch() -> None:
    assert _loaded_by(["app.cli"]) & {"torch", "PySide6", "shiboken6", "pyqtgraph"} == set()


def test_the_targets_that_the_readme_names_exist() -> None:
    named = set(re.findall(r"\bmake ([a-z]+)", (REPOSITORY / "README.md").read_text()))
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"run", "test"} <= named <= targets
    assert "make test" in (REPOSITORY / ".ci" / "run").read_text()


def _commands_in_readme() -> dict[str, set[str]]:
    """Each command of the README's table with the options that its row names."""
    rows = re.findall(r"^\| `kvscope ([a-z]+)\b(.*)$", (REPOSITORY / "README.md").read_text(), flags=re.MULTILINE)
    return {command: set(re.findall(r"--[a-z-]+", rest)) for command, rest in rows}


@pytest.mark.parametrize(("command", "options"), _commands_in_readme().items(), ids=_commands_in_readme().keys())
def test_the_commands_that_the_readme_names_exist(
    command: str, options: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: kvscope {command}")
    assert options <= set(re.findall(r"--[a-z-]+", shown))


def test_the_readme_names_every_command() -> None:
    assert _commands_in_readme().keys() == cli.COMMANDS.keys() - {"open"}


def test_samples_are_listed_whole_and_in_order() -> None:
    listed = json.loads(resource("samples", "samples.json").read_text())
    assert [set(sample) for sample in listed] == [{"path", "title", "story"}] * 5
    folders = {path.parent.relative_to(SAMPLES).as_posix() for path in SAMPLES.rglob("config.json")}
    assert {sample["path"] for sample in listed} == folders
    assert listed[0]["path"] == "modelopt/qwen3-36layers-fp8-kvfp8"
    assert all(sample["story"].endswith(".") and sample["title"] for sample in listed)
    readme = (REPOSITORY / "README.md").read_text()
    assert [sample["path"] for sample in listed] == re.findall(
        r"^\| `((?:\w+)/[\w-]+)` \|", readme, flags=re.MULTILINE
    )[:5]


def test_a_missing_resource_is_named() -> None:
    with pytest.raises(
        FileNotFoundError, match=r"samples.nothing-here is missing: KVScope is not completely installed"
    ):
        resource("samples", "nothing-here")


def test_checkpoints_in_the_repository_are_copies_of_the_shared_ones(shared: Path) -> None:
    for root in (SAMPLES, CHECKPOINTS):
        for path in root.glob("*/*/*"):
            assert path.read_bytes() == (shared / "checkpoints" / path.relative_to(root)).read_bytes(), path


def test_without_shared_checkpoints_those_of_the_repository_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.places.shared_folder", lambda: None)
    found = checkpoint_folders()
    assert len(found) == 19
    assert {name.split("/")[0] for name in found} == {"llmcompressor", "modelopt", "quark"}
    assert all(any(path.glob("*.safetensors")) for path in found.values())


def test_a_shared_folder_that_is_not_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KVSCOPE_SHARED", str(tmp_path))
    with pytest.raises(NotADirectoryError, match=r"KVSCOPE_SHARED=.* has no folder 'checkpoints'"):
        checkpoint_folders()


def test_an_installed_wheel_finds_its_resources(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("app", "core", "resources"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", tmp_path, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("kvscope-*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    tracked = {line for line in _git("ls-files", "app", "core", "resources") if (REPOSITORY / line).is_file()}
    assert tracked <= {path.relative_to(installed).as_posix() for path in installed.rglob("*")}
    code = "import resources; print(resources.resource('samples', 'samples.json'))"
    told = subprocess.run([sys.executable, "-c", code], cwd=installed, capture_output=True, text=True, check=True)
    assert Path(told.stdout.strip()).is_relative_to(installed)


def _set_up(tmp_path: Path, *, tools: dict[str, str], **environment: str) -> subprocess.CompletedProcess[str]:
    """The set-up script in a folder of its own, on a machine whose PATH has nothing but a few tools and ``tools``."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / "bin").mkdir()
    for name in ("pyproject.toml", "constraints.txt", ".ci/setup"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    for name in ("bash", "cat", "cksum", "dirname", "mktemp", "rm"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or name)
    for name, script in tools.items():
        (tmp_path / "bin" / name).write_text(f"#!{shutil.which('bash')}\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    environment["PATH"] = str(tmp_path / "bin")
    return subprocess.run([tmp_path / ".ci" / "setup"], env=environment, capture_output=True, text=True, check=False)


def test_set_up_says_which_python_it_needs(tmp_path: Path) -> None:
    done = _set_up(tmp_path, tools={"python3": "exit 1"})
    assert done.returncode == 1
    assert done.stderr.startswith("KVScope needs Python 3.11 or newer and found none on PATH.\nInstall one")
    assert not (tmp_path / ".venv").exists()


def test_set_up_refuses_an_old_python_that_was_named(tmp_path: Path) -> None:
    done = _set_up(tmp_path, tools={"python3.9": "exit 1"}, PYTHON="python3.9")
    assert done.returncode == 1
    assert done.stderr.startswith("PYTHON=python3.9 is not a Python 3.11 or newer.")


def test_set_up_ends_at_once_until_a_requirement_changes(tmp_path: Path) -> None:
    stamped = """
        mkdir -p .venv/bin && ln -s "$1" .venv/bin/python
        { pwd && cat pyproject.toml constraints.txt .ci/setup; } | cksum >.venv/.kvscope-setup
    """
    first = _set_up(tmp_path, tools={"python3": "exit 1"})
    subprocess.run(["bash", "-c", stamped, "bash", sys.executable], cwd=tmp_path, check=True)
    again = subprocess.run(first.args, env={"PATH": str(tmp_path / "bin")}, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    with (tmp_path / "constraints.txt").open("a") as file:
        file.write("another==1.0\n")
    changed = subprocess.run(
        first.args, env={"PATH": str(tmp_path / "bin")}, capture_output=True, text=True, check=False
    )
    assert changed.stderr == first.stderr != ""
