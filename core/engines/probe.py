"""``probe``: asks a vLLM that is installed on this machine for its mappers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.engines.probed import LIMIT, NotUnderstoodError, ProbedEngine, parse_json, read_probe
from core.engines.vllm.releases import RELEASES
from core.errors import KVScopeError, UsageError
from core.progress import Progress
from resources import resource

DEFAULT_TIMEOUT = 300.0
"""Seconds: the import of vLLM and all its models takes 15 to 60."""

_SCRIPT_SHARE = 0.9
"""The part of the time after which the script tells what it knows; at the end of it, also in the midst of an import."""

_STDERR_LIMIT = 64 << 20
_CRASHES = 3
_PASSED_ON = (
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "USERPROFILE", "LOCALAPPDATA",
    "LD_LIBRARY_PATH", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "ROCM_HOME", "HF_HOME",
    "VLLM_PLUGINS", "VLLM_TARGET_DEVICE", "VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT",
)  # fmt: skip
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "PYTHONIOENCODING": "utf-8",
}
_MORE_TIME = "Give it more time with --timeout SECONDS"
_WHERE = re.compile(rb"^kvscope-probe (\d{1,6})/(\d{1,6}) (\S{1,300})$", re.MULTILINE)


def probe(python: Path | str, *, timeout: float = DEFAULT_TIMEOUT, progress: Progress | None = None) -> ProbedEngine:
    """Read the vLLM of the environment that ``python`` belongs to: its interpreter, or the environment's folder.

    Runs a script there, without a GPU, without the network and without any checkpoint; ``timeout`` is in seconds. A
    module whose import ends the process is left out at the next attempt.

    Raises:
        UsageError: there is no Python at that path, or the time is none.
        KVScopeError: vLLM is not there, is too old, or did not answer in time and in form.
        CancelledError: ``progress`` was cancelled; the process is gone by then.
    """
    if not timeout >= 1:
        raise UsageError(f"{timeout:g} s is no time limit", remedy="Give at least one second")
    interpreter = _interpreter(Path(python))
    progress = progress or Progress()
    progress.start("Reading the installed vLLM", unit="modules")
    deadline = time.monotonic() + timeout
    skipped: list[str] = []
    while True:
        ended = _run(interpreter, deadline, timeout, skipped, progress)
        if ended.status == 0:
            return _answer(ended.output, str(python))
        if ended.status > 0 or not ended.module or len(skipped) == _CRASHES:
            break
        skipped.append(ended.module)
    raise KVScopeError(
        f"the script that reads vLLM ended with {_said(ended.status)}: {ended.last_line or 'it printed nothing'}",
        path=python,
        remedy="Check that this is a working Python 3.10 or newer",
    )


def _interpreter(path: Path) -> Path:
    path = Path.cwd() / path  # not resolved: a link in bin/ tells the environment
    if path.is_dir():
        for name in ("bin/python", "bin/python3", "Scripts/python.exe", "python.exe"):
            if (path / name).is_file():
                return path / name
        raise UsageError("is a folder without a Python", path=path, remedy="Name an environment, or its bin/python")
    if not path.is_file():
        raise UsageError("there is no such Python", path=path, remedy="Name the environment's bin/python")
    return path


# ---------------------------------------------------------------------------------------------------------- the process
@dataclass(frozen=True, slots=True)
class _Ended:
    """How one run ended; ``module`` is the one it was importing, ``last_line`` what it said last on stderr."""

    status: int
    output: bytes
    last_line: str
    module: str


def _run(interpreter: Path, deadline: float, timeout: float, skipped: list[str], progress: Progress) -> _Ended:
    left = max(deadline - time.monotonic(), 1.0)
    command = [str(interpreter), str(resource("probe", "probe_vllm.py")), "--seconds", f"{left * _SCRIPT_SHARE:.1f}"]
    for module in skipped:
        command += ["--skip", module]
    # Files, not pipes: nothing can block, and what was said before an end by force is still there.
    with tempfile.TemporaryDirectory(prefix="kvscope-probe-", ignore_cleanup_errors=True) as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        try:
            with out.open("wb") as stdout, err.open("wb") as stderr:
                process = subprocess.Popen(  # noqa: S603  (the Python that the user named, with this project's script)
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    cwd=folder,  # so that nothing in the user's folder is imported
                    env=_environment(),
                    start_new_session=True,
                )
        except OSError as error:
            raise UsageError(
                f"cannot be run: {error.strerror}", path=interpreter, remedy="Name the environment's bin/python"
            ) from error
        try:
            while process.poll() is None:
                _watch(interpreter, out, err, progress)
                if time.monotonic() > deadline + 1 + timeout / 10:  # a process that cannot even tell what it knows
                    raise KVScopeError(f"vLLM was not read within {timeout:g} s", path=interpreter, remedy=_MORE_TIME)
                time.sleep(0.05)
        finally:
            _end(process)
        _watch(interpreter, out, err, progress)
        output, said = out.read_bytes(), err.read_bytes()
    found = _WHERE.findall(said)
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    spoken = [line for line in lines if not line.startswith("kvscope-probe ")]
    return _Ended(
        status=process.returncode,
        output=output,
        last_line=spoken[-1][:300] if spoken else "",
        module=found[-1][2].decode(errors="replace") if found else "",
    )


def _watch(interpreter: Path, out: Path, err: Path, progress: Progress) -> None:
    progress.check()
    for path, limit in ((out, LIMIT), (err, _STDERR_LIMIT)):
        if path.stat().st_size > limit:
            raise KVScopeError(
                f"printed more than {limit >> 20} MiB, which is no answer of vLLM's",
                path=interpreter,
                remedy="Check that this is a Python with vLLM",
            )
    with err.open("rb") as file:
        file.seek(max(err.stat().st_size - 8192, 0))
        if found := _WHERE.findall(file.read()):
            progress.done, progress.total = int(found[-1][0]), int(found[-1][1])


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and whatever it started are gone after this."""
    with suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _QUIET


def _said(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


# ----------------------------------------------------------------------------------------------------------- the answer
def _answer(output: bytes, python: str) -> ProbedEngine:
    try:
        document = parse_json(output)
        if isinstance(document, dict) and "failed" in document:
            raise _failure(document, python)
        reading = read_probe(document)
    except NotUnderstoodError as error:
        raise KVScopeError(
            f"what it printed is not understood: {error}",
            path=python,
            remedy="Check that this is the Python that vLLM is installed for",
        ) from error
    if is_too_old(reading.version):
        raise _too_old(reading.version, python)
    return ProbedEngine(
        reading=reading, python=python, date=datetime.now(UTC).isoformat(timespec="seconds"), document=document
    )


def _failure(document: dict[str, Any], python: str) -> KVScopeError:
    failed, version, message = (str(document.get(name, ""))[:500] for name in ("failed", "vllm", "message"))
    match failed:
        case "import":
            return KVScopeError(
                f"vLLM cannot be imported there: {message}",
                path=python,
                remedy="Name the Python with which `import vllm` works",
            )
        case "time":
            return KVScopeError(message, path=python, remedy=_MORE_TIME)
        case _ if is_too_old(version):
            return _too_old(version, python)
        case _:
            return KVScopeError(
                f"vLLM {version} cannot be read: {message}",
                path=python,
                remedy="Choose the built-in profile of the nearest version instead: `kvscope engines` lists them",
            )


def number_of(version: str) -> tuple[int, int] | None:
    """(major, minor) of a version; None for a build from sources without tags ("0.1.dev1+g12ab"), which has none."""
    found = re.match(r"(\d{1,3})\.(\d{1,3})(?![\d])", version)
    if found is None or re.match(r"0\.[01]\.?(?:0\.)?dev", version):
        return None
    return int(found.group(1)), int(found.group(2))


def is_too_old(version: str) -> bool:
    """Whether that version is older than every one that KVScope knows."""
    number = number_of(version)
    return number is not None and number < RELEASES[-1].number


def _too_old(version: str, python: str) -> KVScopeError:
    return KVScopeError(
        f"vLLM {version} is too old: KVScope knows vLLM from {RELEASES[-1].version} on",
        path=python,
        remedy="Name an environment with a newer vLLM",
    )
