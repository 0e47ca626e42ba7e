"""``himl-container doctor``: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from himl_container.cli.options import environment_options, output_options
from himl_container.cli.output import Output
from himl_container.errors import EngineError
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.doctor.model import Finding


@click.command()
@environment_options
@output_options
@click.option("--fix", is_flag=True, help="Repair what can be repaired safely, and check again.")
def command(settings: Settings, output: Output, fix: bool) -> int:
    """Check what this machine and this project have and what is missing; say what that means and what to do.

    The exit code is 0, or 69 where a check ends in an error: nothing can be built, or something that was set up does
    not work. What is merely missing is a warning or is skipped. --fix removes what killed runs and builds have left in
    the daemon, and mends permissions.
    """
    from himl_container.doctor.examine import examine, groups, mend

    wanted = groups(settings, os.environ)
    with output.reporter.step("checking", "this machine"):
        findings = examine(wanted)
    repairs = mend(findings) if fix else ()
    if repairs:
        findings = examine(wanted)
    worst = any(finding.severity == "error" for finding in findings)
    value = {"ok": not worst, "findings": [finding.as_json() for finding in findings]}
    if fix:
        value["repairs"] = [finding.as_json() for finding in repairs]
    output.result(value, _text(findings, repairs))
    return EngineError.exit_code if worst else 0


def _text(findings: tuple[Finding, ...], repairs: tuple[Finding, ...]) -> str:
    width = max(len(finding.check) for finding in findings)
    lines = [
        f"{'fixed' if one.severity == 'ok' else 'failed':<7}  {one.check:<{width}}  {one.found}" for one in repairs
    ]
    lines += [""] if repairs else []
    indent = " " * (9 + width + 2)
    for finding in findings:
        lines.append(f"{finding.severity:<7}  {finding.check:<{width}}  {finding.found}")
        if finding.severity != "ok":
            lines += [f"{indent}{finding.means}"] if finding.means else []
            lines += [f"{indent}-> {finding.fix}"] if finding.fix else []
    fixable = sum(1 for finding in findings if finding.repair is not None and finding.severity not in ("ok", "skipped"))
    if fixable:
        lines += ["", f"himl-container doctor --fix repairs {fixable} of these."]
    return "\n".join(lines)
