"""What the smoke test makes of what it finds: distributions, requirements, verdicts, and what it remembers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from himl_container.cache import Cache
from himl_container.environment.model import Declared
from himl_container.errors import SmokeTestError
from himl_container.image import smoke
from himl_container.image.engine import ContainerResult
from himl_container.image.inside import check, installed, trials
from himl_container.image.model import PREFIX, ImageInfo
from himl_container.image.requirements import unsatisfied
from himl_container.image.smoke_verdict import Expected, SmokeReport, judge, no_answer
from himl_container.progress import SilentReporter
from himl_container.settings import Settings
from image import plans

MARKERS = {"python_version": "3.11", "python_full_version": "3.11.7", "sys_platform": "linux", "extra": ""}


def distribution(folder: Path, name: str, files: dict[str, str], *, requires: tuple[str, ...] = ()) -> None:
    """Write an installed distribution with these files beside its metadata."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {r}" for r in requires)]
    (info / "METADATA").write_text("\n".join(lines) + "\n\nName: not this one\n")
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in [*files, f"{info.name}/METADATA"]))
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def test_distributions_and_their_modules(tmp_path: Path) -> None:
    distribution(
        tmp_path,
        "some-thing",
        {
            "thing/__init__.py": "",
            "thing/sub/__init__.py": "",
            "single.py": "",
            "../../../bin/thing": "",
            "data/x.txt": "",
        },
        requires=("numpy>=1", 'pytest; extra == "test"', 'tomli; python_version < "3.11"'),
    )
    distribution(tmp_path, "space-a", {"space/a/__init__.py": "", "_fast.cpython-311-x86_64-linux-gnu.so": ""})
    old = tmp_path / "old-2.0.egg-info"
    old.mkdir()
    (old / "PKG-INFO").write_text("Name: old\nVersion: 2.0\n")
    (old / "top_level.txt").write_text("old\n")
    (old / "requires.txt").write_text('a>=1\n\n[:python_version < "3"]\nb\n\n[test]\nc\n')
    found = {one["name"]: one for one in installed.distributions([str(tmp_path), str(tmp_path / "absent")])}
    assert found["some-thing"]["modules"] == {"thing": ["thing"], "single": ["single"]}
    assert found["some-thing"]["requires"] == ["numpy>=1", 'tomli; python_version < "3.11"']
    assert found["space-a"]["modules"] == {"space": ["space.a"], "_fast": ["_fast"]}
    assert found["old"]["modules"] == {"old": ["old"]}
    assert found["old"]["requires"] == ["a>=1", 'b ; python_version < "3"']


def test_modules_of_declared_names(tmp_path: Path) -> None:
    site = tmp_path / "lib/python3.11/site-packages"
    distribution(site, "Torch-Thing", {"torch/__init__.py": "", "tests/__init__.py": "", "_c.py": ""})
    records = {
        "pytorch-1-0": {"files": ["lib/python3.11/site-packages/Torch-Thing-1.0.dist-info/METADATA"]},
        "py-opencv-1-0": {"files": ["lib/python3.11/site-packages/cv2/__init__.py"]},
        "opencv-1-0": {"files": []},
        "zlib-1-0": {"files": ["lib/libz.so"]},
    }
    (tmp_path / "conda-meta").mkdir()
    for name, record in records.items():
        (tmp_path / "conda-meta" / f"{name}.json").write_text(json.dumps(record))
    conda = {
        "pytorch": ["pytorch-1-0"],
        "opencv": ["opencv-1-0", "py-opencv-1-0"],
        "zlib": ["zlib-1-0"],
        "no": ["no-1"],
    }
    found = installed.declared_modules(
        ["torch-thing", "absent"], conda, installed.distributions([str(site)]), str(tmp_path)
    )
    assert found == {
        "torch-thing": ["torch"],
        "absent": None,
        "pytorch": ["torch"],
        "opencv": ["cv2"],
        "zlib": [],
        "no": None,
    }


def test_records_of_packages_without_modules_are_not_read(tmp_path: Path) -> None:
    meta = tmp_path / "conda-meta"
    meta.mkdir()
    for name in ("lib-1-0", "tool-1-0"):
        (meta / f"{name}.json").write_text('{"files": ["lib/python3.11/site-packages/unread.py"]}')
    conda = {"lib": ["lib-1-0"], "gone": ["gone-1-0"], "tool": ["tool-1-0"]}
    found = installed.declared_modules([], conda, [], str(tmp_path), ["lib", "gone", "other"])
    assert found == {"lib": [], "gone": None, "tool": ["unread"]}


def test_imports_have_a_name_for_every_way_of_failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {
        "fine": "x = 1",
        "broken": "import no_such_module_anywhere",
        "crasher": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "leaver": "import os; os._exit(3)",
        "quitter": "raise SystemExit(0)",
        "jealous": "import sys; assert 'fine' not in sys.modules",
        "sleeper": "import time; time.sleep(60)",
    }
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    names = ["fine", "jealous", "broken", "crasher", "leaver", "quitter"]
    found = trials.import_all(names, trials.Importer(names, 30))
    assert {name: one["ok"] for name, one in found.items()} == {name: name in ("fine", "jealous") for name in names}
    assert "no_such_module_anywhere" in found["broken"]["detail"]
    assert "SIGSEGV" in found["crasher"]["detail"]
    assert "exit code 3" in found["leaver"]["detail"]
    assert "SystemExit" in found["quitter"]["detail"]
    assert "before it in one process" in found["jealous"]["detail"]
    for name, patience in (("sleeper", 0.5), ("fine", 0)):  # the other's interpreter does not even begin in time
        late = trials.import_all([name], trials.Importer([name], patience))
        assert "took longer" in late[name]["detail"]


def test_what_imports_used_below_the_prefix_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"share/read": "x", "bin/tool": "#!/bin/sh\n", "share/untouched": "x"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "bin/tool").chmod(0o755)
    modules = {
        "plain": f"import sys; sys.prefix = {str(tmp_path)!r}",
        "opener": f"open({str(tmp_path / 'share/read')!r})",
        "starter": "import subprocess; subprocess.call(['tool'])",
        "sheller": "import os; os.system('true')",
        "crasher": "import os; os.abort()",
    }
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    # The prefix of the interpreter under test is this folder from its start on.
    (tmp_path / "sitecustomize.py").write_text(modules["plain"])

    def uses(*names: str) -> list[str] | None:
        importer = trials.Importer(list(names), 30)
        importer.results()
        return None if importer.uses is None else [one.removeprefix(f"{tmp_path}/") for one in importer.uses]

    own = {f"{name}.py" for name in modules}  # read as source here, and below lib/python in an image

    def besides(*names: str) -> set[str]:
        found = uses(*names)
        assert found is not None
        return {one for one in found if one not in own and "__pycache__" not in one and one != str(tmp_path)}

    assert besides("plain") == set()
    assert besides("opener", "plain") == {"share/read"}
    assert besides("starter") == {"bin/tool"}
    assert "?" in besides("sheller")
    assert uses("opener", "crasher") is None


def test_markers_are_those_that_packaging_has() -> None:
    from packaging.markers import default_environment

    assert check.markers() == {key: value for key, value in default_environment().items() if key != "extra"}


def test_a_module_is_found_without_being_imported() -> None:
    import sys

    sys.modules.pop("this", None)
    assert check._findable("this")
    assert "this" not in sys.modules
    assert check._findable("sys")
    assert not check._findable("no_such_module_anywhere")


def test_commands_end_in_time_and_say_what_they_said() -> None:
    assert trials.run(["/bin/sh", "-c", "echo out; echo err >&2; exit 4"], 30)["output"] == "out\nerr\n"
    assert trials.run(["/bin/sh", "-c", "exit 4"], 30)["code"] == 4
    assert trials.run(["sleep", "60"], 0.2)["code"] == 124
    assert trials.run(["/no/such/program"], 30)["code"] == 127


@pytest.mark.parametrize(
    ("distributions", "problem"),
    [
        ([("a", "1.0", ["b>=2"]), ("b", "2.1", [])], ""),
        ([("a", "1.0", ["B_b>=2"]), ("b-B", "1.9", [])], "a 1.0 requires B_b>=2, but 1.9 is installed"),
        ([("a", "1.0", ["b"])], "a 1.0 requires b, which is not installed"),
        ([("a", "1.0", ['b; sys_platform == "win32"'])], ""),
        ([("a", "1.0", ['b; extra == "x" and sys_platform == "linux"'])], ""),
        ([("a", "1.0", ["b>=1"]), ("b", "2.0rc1", [])], ""),
        ([("a", "1.0", ["b"]), ("b", "not a version", [])], ""),
        ([("a", "1.0", ["b>1"]), ("b", "not a version", [])], "a 1.0 requires b>1"),
        ([("a", "1.0", []), ("A", "2.0", [])], "A is installed twice: 1.0 and 2.0"),
        ([("a", "1.0", ["what is this?!"])], "cannot be read"),
    ],
)
def test_requirements(distributions: list[tuple[str, str, list[str]]], problem: str) -> None:
    found = unsatisfied([{"name": n, "version": v, "requires": r} for n, v, r in distributions], MARKERS)
    assert [problem in text for text in found] == ([True] if problem else [])


def found_in_image(**changes: Any) -> dict[str, Any]:
    """What a sound image answers, with changes."""
    found: dict[str, Any] = {
        "markers": MARKERS,
        "prefix": PREFIX,
        "glibc": "glibc 2.36",
        "distributions": [{"name": "a", "version": "1", "requires": []}],
        "modules": 1,
        "declared": {"a": ["a"], "zlib": []},
        "not_found": [],
        "remembered": [],
        "imports": {"a": {"ok": True, "seconds": 0.1, "detail": ""}},
        "libraries": {"missing": {}, "imports": {}},
        "commands": [],
        "seconds": {"modules": 0.1, "libraries": 0.1},
    }
    return {**found, **changes}


EXPECTED = Expected(python="3.11.7", glibc="2.28")


def failures(found: dict[str, Any], expected: Expected = EXPECTED) -> dict[str, str]:
    return {check.name: check.detail for check in judge(found, expected) if not check.ok}


def test_a_sound_image_passes() -> None:
    assert failures(found_in_image()) == {}
    names = [check.name for check in judge(found_in_image(), EXPECTED)]
    assert names == ["interpreter", "glibc", "modules", "import a", "requirements", "libraries"]


@pytest.mark.parametrize(
    ("changes", "name", "detail"),
    [
        ({"markers": {**MARKERS, "python_full_version": "3.11.6"}}, "interpreter", "the lock has 3.11.7"),
        ({"prefix": "/usr"}, "interpreter", "not /opt/himl"),
        ({"glibc": "glibc 2.27"}, "glibc", "glibc = '2.27'"),
        ({"glibc": ""}, "glibc", "no GNU C library"),
        ({"not_found": ["gone"]}, "modules", "cannot be found: gone"),
        ({"declared": {"b": None}, "imports": {}}, "modules", "declared but not installed: b"),
        ({"imports": {"a": {"ok": False, "seconds": 0, "detail": "Boom"}}}, "import a", "a: Boom"),
        ({"imports": {}}, "import a", "could not be tried"),
        ({"distributions": [{"name": "a", "version": "1", "requires": ["b"]}]}, "requirements", "not installed"),
        (
            {"libraries": {"missing": {"libGL.so.1": ["module:cv2"]}, "imports": {"cv2": False}}},
            "libraries",
            "libGL.so.1 is missing, for cv2",
        ),
        ({"libraries": {"missing": {"libx.so": ["program:/opt/himl/bin/t"]}, "imports": {}}}, "libraries", "bin/t"),
        ({"mpi": {"mpirun": {"code": 127, "output": "not found", "seconds": 0}}}, "mpi: mpirun", "not found"),
        ({"cuda": {"runtime": []}}, "cuda", "neither in the environment nor in the base"),
        ({"cuda": {"runtime": ["/x"], "torch": None}}, "cuda", "built without CUDA"),
    ],
)
def test_each_check_fails_for_its_reason(changes: dict[str, Any], name: str, detail: str) -> None:
    found = failures(found_in_image(**changes))
    assert list(found) == [name]
    assert detail in found[name]


def test_a_module_that_can_do_without_a_library_passes() -> None:
    libraries = {"missing": {"libtbb.so.12": ["module:numba"]}, "imports": {"numba": True}}
    (check,) = [one for one in judge(found_in_image(libraries=libraries), EXPECTED) if one.name == "libraries"]
    assert check.ok
    assert "numba can do without" in check.detail


def test_commands_and_named_imports_are_checks_of_their_own() -> None:
    found = found_in_image(
        imports={"a": {"ok": True, "seconds": 0, "detail": ""}, "x.y": {"ok": False, "seconds": 0, "detail": "no"}},
        commands=[{"code": 0, "output": "", "seconds": 1.0}, {"code": 3, "output": "why", "seconds": 0.1}],
    )
    expected = replace(EXPECTED, imports=("x.y", "a"), test=("true", "exit 3"))
    assert failures(found, expected) == {"import x.y": "x.y: no", "command: exit 3": "exit code 3\nwhy"}


def test_remembered_imports_pass_and_are_counted() -> None:
    found = found_in_image(declared={"a": ["a"], "b": ["b", "c"]}, remembered=["b", "c"])
    report = SmokeReport("sha256:1", judge(found, EXPECTED))
    assert report.ok
    assert report.imports == (1, 1)
    assert report.as_json()["imports"] == {"tried": 1, "remembered": 1}
    assert report.as_text().endswith("1 imports were tried, 1 are remembered")
    assert failures({**found, "remembered": ["b"]}) == {"import b": "c: could not be tried"}


def test_an_allowed_failure_is_said_but_does_not_count() -> None:
    checks = judge(found_in_image(glibc="glibc 2.27"), replace(EXPECTED, allow=("glibc",)))
    (check,) = [one for one in checks if not one.ok]
    assert check.allowed


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (ContainerResult(127, b"/bin/sh: not found"), "cannot be started\n/bin/sh: not found"),
        (ContainerResult(139, b""), "crashed (signal 11)"),
        (ContainerResult(137, b"", oom_killed=True), "killed for memory"),
        (ContainerResult(1, b"Traceback"), "exit code 1\nTraceback"),
    ],
)
def test_an_interpreter_that_does_not_answer(result: ContainerResult, text: str) -> None:
    (check,) = no_answer(result, 60)
    assert not check.ok
    assert text in check.detail


class LocalEngine:
    """Runs what a container would, on this machine, and counts how often."""

    def __init__(self) -> None:
        self.runs = 0
        self.bare: list[bool] = []

    def inspect(self, reference: str) -> ImageInfo:
        return ImageInfo("sha256:1", (), (), (), "amd64", "linux", 1)

    def run(self, image: str, command: list[str], **options: Any) -> ContainerResult:
        import subprocess
        import sys

        self.runs += 1
        self.bare.append(options["bare"])
        done = subprocess.run([sys.executable, *command[1:]], capture_output=True, check=False)
        return ContainerResult(done.returncode, done.stdout + done.stderr)


@pytest.fixture
def quiet_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "needs_from_base", lambda digests, cache: {})


ALLOWED = ("interpreter", "requirements", "modules", "libraries")


def settings_in(folder: Path, **values: Any) -> Settings:
    known = Settings(root=folder, conda_files=(), lock_file=folder / "lock", cache_dir=folder / "cache")
    # This machine's interpreter answers, whose prefix and installed packages are not those of an image.
    return replace(known, test_allow=ALLOWED, **values)


def run_smoke(engine: LocalEngine, settings: Settings, declared: Declared | None = None) -> smoke.SmokeReport:
    return smoke.smoke_test(
        "image:1",
        lock=plans.lock(declared=declared),
        settings=settings,
        engine=engine,  # type: ignore[arg-type]
        cache=Cache(settings.cache_dir),
        reporter=SilentReporter(),
    )


@pytest.mark.usefixtures("quiet_libraries")
def test_a_success_is_remembered_for_the_image_and_the_tests(tmp_path: Path) -> None:
    engine = LocalEngine()
    first = run_smoke(engine, settings_in(tmp_path, test_imports=("json",)))
    again = run_smoke(engine, settings_in(tmp_path, test_imports=("json",)))
    assert (first.ok, first.remembered, again.ok, again.remembered, engine.runs) == (True, False, True, True, 1)
    assert again.checks == first.checks
    run_smoke(engine, settings_in(tmp_path, test_imports=("json", "csv")))
    assert engine.runs == 2


@pytest.mark.usefixtures("quiet_libraries")
def test_a_failure_names_its_checks_and_is_not_remembered(tmp_path: Path) -> None:
    engine = LocalEngine()
    settings = settings_in(tmp_path, test_imports=("no_such_module_anywhere",), test=("echo said; exit 5",))
    for _ in range(2):
        with pytest.raises(SmokeTestError) as caught:
            run_smoke(engine, settings)
        assert "import no_such_module_anywhere, command: echo said; exit 5" in caught.value.what
        assert "said" in caught.value.what
    assert engine.runs == 2


class Choosy(LocalEngine):
    """No import succeeds in a bare container."""

    def run(self, image: str, command: list[str], **options: Any) -> ContainerResult:
        result = super().run(image, command, **options)
        return (
            replace(result, output=result.output.replace(b'"ok": true', b'"ok": false')) if options["bare"] else result
        )


@pytest.mark.usefixtures("quiet_libraries")
def test_what_fails_in_a_bare_container_is_tried_in_a_usual_one(tmp_path: Path) -> None:
    engine = Choosy()
    assert run_smoke(engine, settings_in(tmp_path, test_imports=("json",))).ok
    assert engine.bare == [True, False]


@pytest.mark.usefixtures("quiet_libraries")
@pytest.mark.parametrize("values", [{"test": ("true",)}, {"test_allow": ("import json", *ALLOWED)}])
def test_commands_and_imports_that_may_fail_get_a_usual_container_at_once(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    engine = Choosy()
    assert run_smoke(engine, replace(settings_in(tmp_path, test_imports=("json",)), **values)).ok
    assert engine.bare == [False]
