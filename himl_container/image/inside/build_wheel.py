"""Building a source distribution into a wheel (PEP 517), run by the environment's interpreter in a container.

Sent as a file and run as a script: nothing of himl_container can be imported here, and Python 3.7 has to read it. The
request comes as the first argument, the answer goes to standard output as the last line: a marker, then base64 of JSON.
"""

# Values are checked on the host; and no pathlib, as in the other modules of this folder.
# ruff: noqa: PTH102, PTH118, PTH119, T201
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys

SOURCE = "/himl/source"
WORK = "/tmp/himl-build"  # noqa: S108 - in a container of its own
MARKER = "himl-answer:"


def run(command, cwd=None, extra_environ=None):
    """Run a hook; its output is the container's."""
    sys.stdout.flush()
    subprocess.check_call(command, cwd=cwd, env=dict(os.environ, **(extra_environ or {})))


def build(request):
    """Return the wheel, or the further requirements that the backend has."""
    from pyproject_hooks import BuildBackendHookCaller  # type: ignore[import-not-found, unused-ignore]

    source = os.path.join(WORK, "source")
    shutil.copytree(SOURCE, source, symlinks=True)  # the mounted one is read-only
    output = os.path.join(WORK, "wheel")
    os.mkdir(output)
    hooks = BuildBackendHookCaller(source, request["backend"], backend_path=request["path"] or None, runner=run)
    wanted = hooks.get_requires_for_build_wheel({})
    missing = [text for text in wanted if text not in request["known"]]
    if missing:
        return {"requires": missing}
    name = hooks.build_wheel(output, {})
    with open(os.path.join(output, os.path.basename(name)), "rb") as file:
        return {"wheel": os.path.basename(name), "content": base64.b64encode(file.read()).decode("ascii")}


def main():
    """Do what the request says; a failing hook has said why on its own."""
    os.umask(0o022)
    # The daemon reads two pipes in any order: what a hook complained of could end up in the middle of the answer.
    os.dup2(1, 2)
    try:
        answer = build(json.loads(sys.argv[1]))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    sys.stdout.flush()
    print("\n" + MARKER + base64.b64encode(json.dumps(answer).encode()).decode("ascii"), flush=True)


if __name__ == "__main__":
    main()
