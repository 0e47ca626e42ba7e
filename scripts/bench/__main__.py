"""``make bench``: himl-container against the Dockerfile that a user would write, as a table and as JSON.

``python -m bench [--scale 1.0] [--runs 3] [--case build.noop ...]`` with ``scripts`` and ``tests`` on the path. Both
sides use the same engine (the one that the command line finds), registry, base image, channel (both served on the
loopback interface) and packages, and take turns. The figures go to ``build/bench.json``.

The baseline does not test its image. So ``ours_s`` is without our test, and ``test_s`` says what it takes on top.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from offline_kit import kit_base_image

from bench.measure import Measured
from bench.world import World


@dataclass(frozen=True)
class Pair:
    """Both sides of a case, measured once.

    :param test: the test of our image, where it is not in ``ours``.
    :param requests: what ours asked of the registry, where that matters.
    """

    baseline: Measured
    ours: Measured
    test: Measured | None = None
    requests: int = 0


Scenario = Callable[[World], dict[str, Pair]]


def cold(world: World) -> dict[str, Pair]:
    """No image, no layer, no download; for the push, no registry that has any of it."""
    world.forget_everything()
    world.empty_registry()
    build, push = world.docker_build(memory=True), world.docker_push()
    ours = world.himl_build(memory=True)
    test = world.himl_build(test=True)
    world.forget_everything()
    world.empty_registry()
    return {"build.cold": Pair(build, ours, test), "push.cold": Pair(build + push, world.himl_push())}


def noop(world: World) -> dict[str, Pair]:
    """Nothing changed."""
    world.docker_build(), world.docker_push(), world.himl_build(test=True), world.himl_push()
    build, push = world.docker_build(), world.docker_push()
    return {
        "build.noop": Pair(build, world.himl_build(test=True)),
        "push.noop": Pair(build + push, world.himl_push(), requests=world.requests_of_push()),
    }


def _changed(world: World, change: Callable[[], None], name: str) -> dict[str, Pair]:
    """Change something and build, then change it again and push, so that neither finds what the other has made."""
    world.docker_build(), world.himl_build(test=True)
    change()
    build, push = world.docker_build(), world.docker_push()
    ours = world.himl_build()
    test = world.himl_build(test=True)
    world.himl_push()
    change()
    return {f"build.{name}": Pair(build, ours, test), f"push.{name}": Pair(build + push, world.himl_push())}


def conda_package(world: World) -> dict[str, Pair]:
    """One small Conda package changed."""
    return _changed(world, world.change_conda_package, "conda_package")


def middle_package(world: World) -> dict[str, Pair]:
    """A package of 20 MB on which others depend changed."""
    world.change_middle_package()
    build, push = world.docker_build(), world.docker_push()
    return {"push.middle_package": Pair(build + push, world.himl_push())}


def wheel(world: World) -> dict[str, Pair]:
    """The private wheel changed."""
    return _changed(world, world.change_wheel, "wheel")


def fresh_agent(world: World) -> dict[str, Pair]:
    """A machine that has nothing, a registry that has the last image, and one small Conda package changed."""
    world.docker_build(), world.docker_push(), world.himl_push()
    world.change_conda_package()
    world.forget_everything()
    baseline = world.docker_build_from_cache() + world.docker_push()
    world.forget_everything()
    return {"push.fresh_agent": Pair(baseline, world.himl_push())}


def run_start(world: World) -> dict[str, Pair]:
    """``run --local true`` against ``docker run --rm IMAGE true``."""
    return {"run.start": Pair(world.docker_run("true"), world.himl_run("true"))}


def first_import(world: World) -> dict[str, Pair]:
    """First import in a fresh container, against one whose bytecode was written by an import before."""
    return {"run.first_import": Pair(*world.import_times())}


def show_help(world: World) -> dict[str, Pair]:
    """``--help`` against an interpreter that does nothing."""
    return {"cli.help": Pair(world.python_start(), world.himl_help())}


SCENARIOS: dict[Scenario, tuple[str, ...]] = {
    cold: ("build.cold", "push.cold"),
    noop: ("build.noop", "push.noop"),
    conda_package: ("build.conda_package", "push.conda_package"),
    middle_package: ("push.middle_package",),
    wheel: ("build.wheel", "push.wheel"),
    run_start: ("run.start",),
    first_import: ("run.first_import",),
    show_help: ("cli.help",),
    fresh_agent: ("push.fresh_agent",),
}


def main() -> int:
    """Run the cases and report."""
    cases = [case for names in SCENARIOS.values() for case in names]
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="size of the environment; 1 is 2.5 GB")
    parser.add_argument("--runs", type=int, default=3, help="runs of each case; medians are reported")
    parser.add_argument("--case", action="append", choices=sorted(cases), help="only this case (repeatable)")
    parser.add_argument("--base", default="", help="base image of both sides; default: the offline kit's")
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"))
    arguments = parser.parse_args()
    chosen = [one for one, names in SCENARIOS.items() if set(names) & set(arguments.case or cases)]
    results: dict[str, dict[str, float]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="himl-bench-") as folder,
        World(Path(folder), arguments.base or kit_base_image(), arguments.scale) as world,
    ):
        world.prepare()
        for scenario in chosen:
            runs = [scenario(world) for _ in range(arguments.runs)]
            for name in SCENARIOS[scenario]:
                results[name] = _summary([run[name] for run in runs])
                print(f"{name}: {results[name]}", file=sys.stderr, flush=True)
            facts = world.facts()
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps({"facts": facts, "cases": results}, indent=1) + "\n")
    print(_table(results))
    return 0


def _summary(pairs: list[Pair]) -> dict[str, float]:
    baseline = _median(pair.baseline.seconds for pair in pairs)
    ours = _median(pair.ours.seconds for pair in pairs)
    summary = {"baseline_s": round(baseline, 3), "ours_s": round(ours, 3), "ratio": round(baseline / ours, 2)}
    tests = [pair.test.seconds for pair in pairs if pair.test is not None]
    if tests:
        summary["test_s"] = round(_median(tests), 3)
    for name, unit in (("peak", 1e6), ("sent", 1e6)):
        for side in ("baseline", "ours"):
            values = [getattr(getattr(pair, side), f"{name}_bytes") for pair in pairs]
            if any(values):
                summary[f"{side}_{name}_mb"] = round(_median(values) / unit, 2)
    requests = [pair.requests for pair in pairs]
    if any(requests):
        summary["ours_requests"] = max(requests)
    return summary


def _median(values: Iterable[float]) -> float:
    return statistics.median(list(values))


def _table(results: dict[str, dict[str, float]]) -> str:
    lines = ["| case | baseline, s | ours, s | times faster | our test, s | sent, MB |", "| --- " * 6 + "|"]
    for name, r in results.items():
        sent = f"{r.get('baseline_sent_mb', 0)} / {r['ours_sent_mb']}" if "ours_sent_mb" in r else ""
        lines.append(f"| {name} | {r['baseline_s']} | {r['ours_s']} | {r['ratio']} | {r.get('test_s', '')} | {sent} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
