from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from himl_container.emulator.compute import run_script

RUNNER = str(Path(run_script.__file__))


def run(folder: Path, text: str, *words: str, runner: bool = True) -> subprocess.CompletedProcess[str]:
    (folder / "train.py").write_text(text)
    command = [sys.executable, *([RUNNER] if runner else []), "train.py", *words]
    environ = {**os.environ, "PYTHONPATH": str(folder / "modules"), "PYTHONUNBUFFERED": "1"}  # as a job has it
    errors = subprocess.PIPE if runner else subprocess.STDOUT
    return subprocess.run(
        command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=60, check=False
    )


SEES = """
'''A text.'''
import sys, pickle, multiprocessing
class Thing: pass
def work(queue): queue.put(__name__)
if __name__ == "__main__":
    print(sys.argv, sys.path[0], __file__, __doc__, __spec__, sorted(n for n in globals() if not n.startswith("__")))
    print(sys.modules["__main__"].Thing is Thing, type(pickle.loads(pickle.dumps(Thing()))) is Thing)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=work, args=(queue,))
    process.start(); print(queue.get()); process.join()
"""


def test_a_script_sees_what_it_sees_without_the_runner(tmp_path: Path) -> None:
    with_it, without = (run(tmp_path, SEES, "--a", "b c", runner=runner) for runner in (True, False))
    assert with_it.returncode == 0, with_it.stdout
    assert with_it.stdout == without.stdout
    assert "__mp_main__" in with_it.stdout


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    raise ValueError('no')\nf()\n",
        "import sys; sys.exit(7)",
        "import sys; sys.exit('words')",
        "x = = 1\n",
        "raise SystemExit",
        "import atexit; atexit.register(print, 'at the end')\n1/0\n",
        "from __future__ import annotations\nx: Unknown = 1\nprint(__annotations__)\n",
        "print(__annotations__, sorted(globals()))\n",
    ],
)
def test_a_script_ends_as_it_does_without_the_runner(tmp_path: Path, text: str) -> None:
    with_it, without = (run(tmp_path, text, runner=runner) for runner in (True, False))
    assert with_it.returncode == without.returncode
    assert with_it.stdout.replace(str(tmp_path) + "/", "") == without.stdout.replace(str(tmp_path) + "/", "")


def test_both_streams_are_one_so_that_their_order_is_kept(tmp_path: Path) -> None:
    text = "import sys\nfor i in range(50):\n    print(i, end=' ')\n    print('x', file=sys.stderr)\n"
    done = run(tmp_path, text)
    assert done.stdout == "".join(f"{i} x\n" for i in range(50))
    assert done.stderr == ""


SDK = """
class _RunBase:
    @classmethod
    def _kill(cls, timeout):
        print("sent", timeout)
        {fault}
"""


@pytest.mark.parametrize("fault", ["", "raise RuntimeError('no way')"])
def test_the_sdk_is_asked_to_send_what_it_holds(tmp_path: Path, fault: str) -> None:
    module = tmp_path / "modules" / "azureml" / "_run_impl" / "run_base.py"
    module.parent.mkdir(parents=True)
    for folder in (module.parent, module.parent.parent):
        (folder / "__init__.py").touch()
    module.write_text(SDK.format(fault=fault))
    done = run(tmp_path, "import azureml._run_impl.run_base\nprint('script')\nraise SystemExit(3)\n")
    assert done.returncode == 3
    assert done.stdout.startswith("script\nsent 300\n")
    assert ("no way" in done.stdout) == bool(fault)
    assert run(tmp_path, "print('script')").stdout == "script\n"  # not imported, not asked
