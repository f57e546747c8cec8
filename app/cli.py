"""The command line. Nothing here imports Qt, and no command imports torch, until it is needed."""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.many import add_many_arguments, check_many, wants_many
from app.planning import add_planning_arguments
from app.writing import add_writing_arguments, prepare, settle_target, shown_progress, write
from core import __version__
from core.errors import KVScopeError, UsageError
from core.output import as_lines, plain_line, standard_streams, stop_without_reader

if TYPE_CHECKING:
    from core.diagnosis import Thresholds
    from core.engines.profile import Wish
    from core.inspection import Inspection
    from core.naming.mapper import WeightsMapper

DEFAULT_ENGINE = "vllm-0.33.0"  # as core.engines has it; importing that here would slow `--help` down
EXIT_FINE, EXIT_PROBLEMS, EXIT_UNUSABLE = 0, 1, 2
EXIT_UNREAD = 141  # whoever read the output left before the work was done, as a shell says of SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 nothing wrong, 1 problems found, 2 unreadable input or usage
    error. Errors are one sentence on stderr; ``--debug`` lets the traceback through.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    known = COMMANDS.keys()
    if not arguments or (arguments[0] not in known and arguments[0] not in ("-h", "--help", "--version")):
        arguments.insert(0, "open")
    with standard_streams():
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    try:
        options = _parsed(arguments)
        status = COMMANDS[options.command](options)
        sys.stdout.flush()
    except KVScopeError as error:
        if "--debug" in arguments:
            raise
        _complain(str(error))
        return EXIT_UNUSABLE
    except KeyboardInterrupt:
        _complain("stopped")
        return EXIT_UNUSABLE
    except BrokenPipeError:
        return EXIT_UNREAD
    except Exception as error:
        if "--debug" in arguments:
            raise
        _complain(f"an unexpected {type(error).__name__}: {error}. Run the same with --debug and report what it prints")
        return EXIT_UNUSABLE
    return status


def _parsed(arguments: list[str]) -> argparse.Namespace:
    try:
        return _parser().parse_args(arguments)
    finally:  # of --help nothing else tells that it could not be written
        sys.stdout.flush()


def _complain(sentence: str) -> None:
    """One line on stderr, where that can be written."""
    with suppress(KVScopeError):
        print(f"kvscope: {plain_line(sentence)}", file=sys.stderr)


# ------------------------------------------------------------------------------------------------------------ arguments
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kvscope",
        description="Will my engine's attention layers really receive these KV-cache scales?",
        epilog="kvscope [PATH ...] opens the window. Exit status: 0 nothing wrong, 1 problems found, "
        "2 unreadable input or usage error.",
    )
    parser.add_argument("--version", action="version", version=f"kvscope {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show a traceback instead of one sentence")
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--method", help="quantization method instead of the declared one")
    options.add_argument("--architecture", help="architecture instead of the declared one")
    options.add_argument("--kv-cache-dtype", default="auto", help="as given to the engine (default: %(default)s)")
    options.add_argument("--dtype", help="the engine's model dtype (default: from the config)")
    options.add_argument("--rules", metavar="FILE", help="TOML file with an out-of-tree backend's renaming rules")

    engine = argparse.ArgumentParser(add_help=False, parents=[options])
    engine.add_argument("--engine", default=DEFAULT_ENGINE, help="engine profile (default: %(default)s)")

    window = commands.add_parser("open", parents=[common, options], help="open the window (the default)")
    window.add_argument("paths", nargs="*", metavar="PATH")
    window.add_argument("--select", metavar="KEY", help="select this tensor")
    window.add_argument("--engine", help=f"engine profile (default: the window's setting, else {DEFAULT_ENGINE})")

    check = commands.add_parser("check", parents=[common, options], help="say whether the scales arrive")
    check.add_argument(
        "--engine",
        action="append",
        help=f'engine profile, several times to compare, or "all" (default: {DEFAULT_ENGINE})',
    )
    check.add_argument("paths", nargs="*", metavar="PATH")
    check.add_argument(
        "--limit",
        action="append",
        metavar="NAME=NUMBER",
        help="another limit of the rules, as the window's settings list them: large=2",
    )
    check.add_argument("--json", action="store_true", help="print the report as JSON")
    check.add_argument("--html", metavar="FILE", help="write the report as one self-contained HTML file")
    add_many_arguments(check)

    mapping = commands.add_parser("map", parents=[common, engine], help="rename tensor names as the engine does")
    mapping.add_argument("names", nargs="*", metavar="NAME", help="read from stdin when none are given")
    mapping.add_argument("--json", action="store_true", help="a JSON list on stdin, a JSON object out")

    export = commands.add_parser("export", parents=[common, engine], help="write a normalized copy")
    export.add_argument("path", metavar="PATH")
    export.add_argument("out", metavar="OUT", nargs="?")
    add_planning_arguments(export)
    add_writing_arguments(export)
    export.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    export.add_argument("--json", action="store_true", help="print plan and result as JSON")

    verify = commands.add_parser("verify", parents=[common, engine], help="run the loader and compare")
    _verify_options(verify)

    diff = commands.add_parser("diff", parents=[common], help="compare the scales of two checkpoints")
    diff.add_argument("left", metavar="A")
    diff.add_argument("right", metavar="B")
    diff.add_argument("--json", action="store_true", help="print the rows as JSON")

    probe = commands.add_parser("probe", parents=[common], help="read the vLLM that is installed on this machine")
    probe.add_argument("--python", required=True, metavar="PATH", help="the Python it is installed for, or its folder")
    probe.add_argument("--timeout", type=float, metavar="S", help="seconds it may take (default: 300)")
    probe.add_argument("--all", action="store_true", help="name every method and class of a difference")
    probe.add_argument("--json", action="store_true", help="print what was read, and the differences, as JSON")

    for name, text in (("engines", "list engines, methods and architectures"), ("conventions", "list conventions")):
        listing = commands.add_parser(name, parents=[common], help=text)
        listing.add_argument("--json", action="store_true")
    return parser


def _verify_options(verify: argparse.ArgumentParser) -> None:
    verify.add_argument("path", metavar="PATH")
    verify.add_argument("--device", default="cpu", help="cpu or cuda:N (default: %(default)s)")
    verify.add_argument(
        "--tensor-parallel",
        type=int,
        default=1,
        metavar="N",
        help="load on N ranks, each a process, with CUDA each on a GPU of its own (default: %(default)s)",
    )
    verify.add_argument(
        "--fnuz",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether the GPU's float8 type is FNUZ, as on AMD MI300 (default: ask the device)",
    )
    verify.add_argument("--forward", action="store_true", help="run the attention: what do the scales cost its output?")
    verify.add_argument(
        "--projections",
        action="store_true",
        help="with --forward: keys and values by the checkpoint's own projections, where PyTorch can read them",
    )
    verify.add_argument("--seed", type=int, default=0, help="with --forward: what is drawn (default: %(default)s)")
    verify.add_argument("--json", action="store_true", help="print the result as JSON")


def _wish(options: argparse.Namespace) -> Wish:
    from core.engines import Wish

    mapper: WeightsMapper | None = None
    method = options.method
    if options.rules is not None:
        from core.backends.rules_file import read_rules

        rules = read_rules(options.rules)
        mapper, method = rules.mapper, method or rules.method
    return Wish(
        method=method,
        architecture=options.architecture,
        kv_cache_dtype=options.kv_cache_dtype,
        dtype=options.dtype,
        rules=mapper,
    )


def _limits(options: argparse.Namespace) -> Thresholds | None:
    limits = getattr(options, "limit", None)
    if not limits:
        return None
    from core.diagnosis.thresholds import with_limits

    return with_limits(limits)


def _inspect(path: str, options: argparse.Namespace, engine: str | None = None) -> Inspection:
    from core.inspection import inspect

    wish = _wish(options)
    with shown_progress() as progress:
        return inspect(
            path,
            engine=engine or options.engine or DEFAULT_ENGINE,
            method=wish.method,
            architecture=wish.architecture,
            kv_cache_dtype=wish.kv_cache_dtype,
            dtype=wish.dtype,
            rules=wish.rules,
            thresholds=_limits(options),
            progress=progress,
        )


def _status(inspection: Inspection) -> int:
    problems = any(finding.severity != "info" for finding in inspection.findings)
    return EXIT_PROBLEMS if problems or inspection.verdict.outcome != "ok" else EXIT_FINE


# ------------------------------------------------------------------------------------------------------------- commands
def _open(options: argparse.Namespace) -> int:
    from app.display import why_no_window

    reason = why_no_window()
    if reason is None:
        if options.engine is not None:
            from core.engines import get_engine

            get_engine(options.engine)  # told on stderr, before any window
        asked = any((options.method, options.architecture, options.dtype, options.rules))
        # The engines take longer to import than an empty window to show: only where something is asked of them.
        wish = _wish(options) if asked or options.kv_cache_dtype != "auto" else None
        from app.gui import start

        return start(options.paths, engine=options.engine, wish=wish, select=options.select)
    print(f"No window: {reason}", file=sys.stderr)
    if not options.paths:
        print("Name a checkpoint to get the text report: kvscope PATH", file=sys.stderr)
        return EXIT_UNUSABLE
    return _report_as_text(options)


def _report_as_text(options: argparse.Namespace) -> int:
    from core.report import text_report

    status = EXIT_FINE
    for path in options.paths:
        stop_without_reader()
        inspection = _inspect(path, options)
        print(text_report(inspection))
        status = max(status, _status(inspection))
    return status


def _check(options: argparse.Namespace) -> int:
    engines = _engine_ids(options.engine)
    if wants_many(options):
        return check_many(options, engines)
    if not options.paths:
        raise UsageError("no checkpoint is named", remedy="Give a PATH, or --list FILE")
    # What is listed and judged here lives until the report is written: looking through it for garbage finds none.
    usual = gc.get_threshold()
    gc.set_threshold(200_000)
    try:
        return _check_each(options, engines)
    finally:
        gc.set_threshold(*usual)


def _check_each(options: argparse.Namespace, engines: list[str]) -> int:
    from core.report import html_report, json_text, report

    several = len(options.paths) > 1
    if options.html is not None and (several or len(engines) > 1):
        raise UsageError("--html takes one checkpoint and one engine", remedy="Run it once for each")
    status = EXIT_FINE
    reports: list[dict[str, Any]] = []
    for path in options.paths:
        stop_without_reader()
        try:
            found = [_inspect(path, options, engines[0])]
        except UsageError:
            raise
        except KVScopeError as error:
            if not several or options.debug:
                raise
            _complain(str(error))
            reports.append({"schema": "kvscope.report/1", "checkpoint": {"path": path}, "error": str(error)})
            status = EXIT_UNUSABLE
            continue
        comparison: dict[str, Any] = {}
        if len(engines) > 1:
            found, comparison = _under_each(found[0], engines, as_text=not options.json)
        elif not options.json:
            _tell(found[0], one_line=several)
        status = max([status, *map(_status, found)])
        if options.json:
            reports += [report(each) | comparison for each in found]
        if options.html is not None:
            _write_text(Path(options.html), html_report(found[0]))
    if options.json:
        print(json_text(reports if several or len(engines) > 1 else reports[0]))
    return status


def _engine_ids(asked: list[str] | None) -> list[str]:
    from core.engines import ENGINES, get_engine

    ids = list(dict.fromkeys(asked or [DEFAULT_ENGINE]))
    if "all" in ids:
        return list(ENGINES)
    for engine in ids:
        get_engine(engine)
    return ids


def _under_each(
    inspection: Inspection, engines: list[str], *, as_text: bool
) -> tuple[list[Inspection], dict[str, Any]]:
    """The checkpoint under several engines: those that could answer, and what the reports say of them all; printed as
    a table where text is wanted.
    """
    from core.matrix import matrix
    from core.report.matrix import matrix_as_data, matrix_text

    columns = matrix(inspection, engines)
    if as_text:
        print(f"{plain_line(inspection.checkpoint.place)}\n{matrix_text(columns)}")
    answers = [column.inspection for column in columns if column.inspection is not None]
    return answers, {"comparison": matrix_as_data(columns)}


def _tell(inspection: Inspection, *, one_line: bool) -> None:
    from core.report.text import one_line as line
    from core.report.text import text_report

    print(plain_line(line(inspection)) if one_line else text_report(inspection))


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror}", path=path, remedy="Choose a file in a folder you may write to"
        ) from error


def _map(options: argparse.Namespace) -> int:
    from core.engines import get_engine
    from core.report.contract import json_text
    from core.report.text import mapping_text

    names = options.names or _names_from_stdin(as_json=options.json)
    wish = _wish(options)
    engine = get_engine(options.engine)
    renamings = engine.map_names(names, method=wish.method, architecture=wish.architecture, rules=wish.rules)
    if options.json:
        print(
            json_text(
                {
                    "engine": options.engine,
                    "method": wish.method,
                    "names": {renaming.name: renaming.result for renaming in renamings},
                }
            )
        )
    else:
        print(as_lines(mapping_text(renamings, engine, wish.method)))
    return EXIT_FINE


def _names_from_stdin(*, as_json: bool) -> list[str]:
    if sys.stdin is None:
        raise UsageError("there are no names: stdin is closed", remedy="Give a NAME, or names on stdin")
    try:
        text = sys.stdin.read()
    except (OSError, ValueError) as error:
        raise UsageError(f"stdin cannot be read: {error}", remedy="Give names as UTF-8 text") from error
    if not as_json:
        return text.split()
    try:
        names = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"stdin holds no JSON: {error}", remedy='Give a list of names: ["a.b.k_scale"]') from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError("stdin holds no list of texts", remedy='Give a list of names: ["a.b.k_scale"]')
    return names


def _export(options: argparse.Namespace) -> int:
    from core.export import plan_export
    from core.export.fixes import parse_fixes
    from core.export.prepare import prepared_as_data, prepared_text
    from core.export.report import plan_as_data, plan_text, result_as_data, result_text
    from core.export.target import with_quantized_cache
    from core.report.contract import json_text

    settle_target(options)
    fixes = parse_fixes(options.fix)
    inspection = with_quantized_cache(_inspect(options.path, options, options.target))
    plan = plan_export(inspection, names=options.names, fixes=fixes, scales_from=options.scales_from)
    far = inspection.checkpoint.remote is not None
    if options.dry_run and far and not options.overlay:  # it can be planned, but not written
        print(json_text(plan_as_data(plan)) if options.json else plan_text(plan))
        return EXIT_FINE
    prepared = prepare(plan, options)
    data = {**plan_as_data(prepared.plan), **prepared_as_data(prepared)}
    if not options.json:
        print(
            f"{plan_text(prepared.plan)}\n{prepared_text(prepared)}", flush=True
        )  # a reader that leaves does not stop it
    if options.dry_run:
        if options.json:
            print(json_text(data))
        return EXIT_FINE
    with shown_progress() as progress:
        result = write(plan, options, progress)
    print(json_text({**data, **result_as_data(result)}) if options.json else result_text(result), flush=True)
    return _status(result.after)


def _verify(options: argparse.Namespace) -> int:
    from core.loading.findings import with_observation
    from core.loading.forward_result import ForwardOptions
    from core.loading.report import findings_lines, verification_as_data, verification_lines
    from core.loading.verify import verify
    from core.report.contract import finding_as_data, json_text

    if not 0 <= options.seed < 2**63:
        raise UsageError(f"the seed {options.seed} cannot be drawn from", remedy=f"Give --seed 0 to {2**63 - 1}")
    inspection = _inspect(options.path, options)
    verification = verify(
        inspection,
        device=options.device,
        fnuz=options.fnuz,
        tensor_parallel=options.tensor_parallel,
        forward=ForwardOptions(seed=options.seed, projections=options.projections) if options.forward else None,
    )
    findings = with_observation(inspection.findings, verification, inspection.deliveries)
    if options.json:
        print(json_text({**verification_as_data(verification), "findings": [finding_as_data(one) for one in findings]}))
    else:
        print(as_lines([*verification_lines(verification), *findings_lines(findings)]))
    # What is said of one rank knows nothing of a number of ranks that the engine refuses, or on which it stops.
    return max(EXIT_FINE if verification.agreed and verification.sound else EXIT_PROBLEMS, _status(inspection))


def _diff(options: argparse.Namespace) -> int:
    from core.checkpoint import open_checkpoint
    from core.comparison import compare
    from core.naming.conventions import ENDINGS, find_scales
    from core.report.contract import json_text
    from core.report.difference import comparison_as_data, comparison_text

    left, right = (find_scales(open_checkpoint(path, wanted=ENDINGS)) for path in (options.left, options.right))
    comparison = compare(left, right)
    data = comparison_as_data(comparison, options.left, options.right)
    print(json_text(data) if options.json else comparison_text(comparison))
    return EXIT_FINE if all(row.change == "same" for row in comparison.rows) else EXIT_PROBLEMS


def _engines(options: argparse.Namespace) -> int:
    from core.engines import ENGINES
    from core.report.contract import json_text

    if options.json:
        data = [
            {
                "id": profile.id,
                "title": profile.title,
                "source": profile.source,
                "how_checked": profile.how_checked,
                "architectures": list(profile.known_architectures()),
            }
            for profile in ENGINES.values()
        ]
        print(json_text(data))
        return EXIT_FINE
    for profile in ENGINES.values():
        print(f"{profile.id}: {profile.title}")
        print(f"  source:        {profile.source}")
        print(f"  checked:       {profile.how_checked}")
        known = profile.known_architectures()
        print(f"  architectures: {len(known)}: {', '.join(known)}")
    return EXIT_FINE


def _probe(options: argparse.Namespace) -> int:
    from core.engines.installed import Installed
    from core.engines.probe import DEFAULT_TIMEOUT, probe
    from core.engines.saved import save
    from core.report.contract import json_text
    from core.report.probe import probe_as_data, probe_text

    timeout = DEFAULT_TIMEOUT if options.timeout is None else options.timeout
    if sys.stderr.isatty():
        print(f"Reading the vLLM of {options.python}: at most {timeout:g} s ...", file=sys.stderr)
    engine = Installed(probe(options.python, timeout=timeout))
    file = save(engine.probed)
    if options.json:
        print(json_text(probe_as_data(engine, file)))
    else:
        print(probe_text(engine, file, full=options.all))
    return EXIT_PROBLEMS if engine.differences or not engine.probed.reading.complete else EXIT_FINE


def _conventions(options: argparse.Namespace) -> int:
    from core.naming.conventions import CONVENTIONS
    from core.report.contract import json_text

    fields = ("id", "producer", "keys", "shape", "declared_as", "source")
    rows = [{name: getattr(convention, name) for name in fields} for convention in CONVENTIONS]
    if options.json:
        print(json_text(rows))
        return EXIT_FINE
    for row in rows:
        print(f"{row['id']} ({row['producer']})")
        print(f"  keys:     {row['keys']}\n  shape:    {row['shape']}\n  declared: {row['declared_as']}")
        print(f"  source:   {row['source']}")
    return EXIT_FINE


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "open": _open,
    "check": _check,
    "map": _map,
    "export": _export,
    "verify": _verify,
    "diff": _diff,
    "probe": _probe,
    "engines": _engines,
    "conventions": _conventions,
}


if __name__ == "__main__":
    sys.exit(main())
