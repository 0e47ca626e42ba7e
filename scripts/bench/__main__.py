"""``make bench``: himl-container against the Dockerfile that a user would write, as a table and as JSON.

``python -m bench [--scale 1.0] [--runs 3] [--case build.noop ...]`` with ``scripts`` on the path. Both sides use the
same engine (the one that the command line finds), base image, channel (served on the loopback interface) and packages,
and take turns. The figures go to ``build/bench.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from offline_kit import kit_base_image

from bench.measure import Measured
from bench.world import World

Case = Callable[[World], tuple[Measured, Measured]]


def noop(world: World) -> tuple[Measured, Measured]:
    """Nothing changed."""
    return world.docker_build(), world.himl_build()


def conda_package(world: World) -> tuple[Measured, Measured]:
    """One small Conda package changed, from lock to loaded image."""
    world.change_conda_package()
    return world.docker_build(), world.himl_build()


def wheel(world: World) -> tuple[Measured, Measured]:
    """The private wheel changed."""
    world.change_wheel()
    return world.docker_build(), world.himl_build()


def cold(world: World) -> tuple[Measured, Measured]:
    """No image, no layer, no download."""
    world.forget_everything()
    return world.docker_build(memory=True), world.himl_build(memory=True)


def run_start(world: World) -> tuple[Measured, Measured]:
    """``run --local true`` against ``docker run --rm IMAGE true``."""
    return world.docker_run("true"), world.himl_run("true")


def first_import(world: World) -> tuple[Measured, Measured]:
    """First import in a fresh container, against one whose bytecode was written by an import before."""
    return world.import_times()


def show_help(world: World) -> tuple[Measured, Measured]:
    """``--help`` against an interpreter that does nothing."""
    return world.python_start(), world.himl_help()


CASES: dict[str, Case] = {
    "build.cold": cold,
    "build.noop": noop,
    "build.conda_package": conda_package,
    "build.wheel": wheel,
    "run.start": run_start,
    "run.first_import": first_import,
    "cli.help": show_help,
}


def main() -> int:
    """Run the cases and report."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="size of the environment; 1 is 2.5 GB")
    parser.add_argument("--runs", type=int, default=3, help="runs of each case; medians are reported")
    parser.add_argument("--case", action="append", choices=sorted(CASES), help="only this case (repeatable)")
    parser.add_argument("--base", default="", help="base image of both sides; default: the offline kit's")
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"))
    arguments = parser.parse_args()
    chosen = {name: case for name, case in CASES.items() if not arguments.case or name in arguments.case}
    results: dict[str, dict[str, float]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="himl-bench-") as folder,
        World(Path(folder), arguments.base or kit_base_image(), arguments.scale) as world,
    ):
        world.prepare()
        for name, case in chosen.items():
            pairs = [case(world) for _ in range(arguments.runs)]
            results[name] = _summary(pairs)
            print(f"{name}: {results[name]}", file=sys.stderr, flush=True)
        facts = world.facts()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"facts": facts, "cases": results}, indent=1) + "\n")
    print(_table(results))
    return 0


def _summary(pairs: list[tuple[Measured, Measured]]) -> dict[str, float]:
    baseline = statistics.median(pair[0].seconds for pair in pairs)
    ours = statistics.median(pair[1].seconds for pair in pairs)
    summary = {"baseline_s": round(baseline, 3), "ours_s": round(ours, 3), "ratio": round(baseline / ours, 2)}
    if any(pair[0].peak_bytes for pair in pairs):
        summary["baseline_peak_mb"] = round(statistics.median(pair[0].peak_bytes for pair in pairs) / 1e6)
        summary["ours_peak_mb"] = round(statistics.median(pair[1].peak_bytes for pair in pairs) / 1e6)
    return summary


def _table(results: dict[str, dict[str, float]]) -> str:
    lines = ["| case | baseline, s | ours, s | times faster |", "| --- | --- | --- | --- |"]
    lines += [f"| {name} | {r['baseline_s']} | {r['ours_s']} | {r['ratio']} |" for name, r in results.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
