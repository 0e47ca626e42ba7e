"""``scripts/setup.sh`` on machines of several kinds: stand-ins for what it calls say what it would have done."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from kit import ROOT

TOOLS = (
    "bash",
    "cat",
    "chmod",
    "cp",
    "touch",
    "dirname",
    "env",
    "grep",
    "mkdir",
    "nohup",
    "rm",
    "sed",
    "seq",
    "setsid",
    "sleep",
    "tail",
    "timeout",
)

PYTHON = """#!/bin/bash
# A Python whose 'venv' module makes a folder with itself, and whose pip notes what it installs.
case "$*" in
    *"import ensurepip, venv"*) [ ! -e "$FAKE/no-venv" ] ;;
    "--version") echo Python 3.11.0 ;;
    "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    "-m pip "*) echo "$*" >>"$FAKE/pip.log" ;;
    *version_info*) [ ! -e "$FAKE/no-python" ] ;;
    *hashlib*) echo stamp ;;
    *) exit 1 ;;
esac
"""
APT = """#!/bin/bash
echo "$*" >>"$FAKE/apt.log"
[ "$1" != install ] || { rm -f "$FAKE/no-venv"; touch "$FAKE/engine-runs"; }
[ ! -e "$FAKE/no-network" ] || { echo 'E: no network'; exit 100; }
"""
NPM = """#!/bin/bash
echo "$*" >>"$FAKE/npm.log"
mkdir -p .kit/azurite/node_modules/.bin
printf '#!/bin/bash\\n' >.kit/azurite/node_modules/.bin/azurite-blob
chmod +x .kit/azurite/node_modules/.bin/azurite-blob
"""
DOCKER = """#!/bin/bash
[ -e "$FAKE/engine-runs" ]
"""


class Machine:
    """A project folder with the script, and a folder of programs that is the whole search path."""

    def __init__(self, folder: Path) -> None:
        self.fake, self.project = folder / "bin", folder / "project"
        (self.project / "scripts").mkdir(parents=True)
        self.fake.mkdir()
        shutil.copy(ROOT / "scripts" / "setup.sh", self.project / "scripts")
        (self.project / "pyproject.toml").write_text("[project]\n")
        for tool in TOOLS:
            (self.fake / tool).symlink_to(str(shutil.which(tool)))
        self.program("python3.11", PYTHON)
        self.program("mmdebstrap", "#!/bin/bash\n")
        self.program("docker-registry", "#!/bin/bash\n")
        self.program("chromium", "#!/bin/bash\n")
        self.program("chromedriver", "#!/bin/bash\n")
        self.program("azurite-blob", "#!/bin/bash\n")
        self.user(0)

    def program(self, name: str, text: str) -> None:
        path = self.fake / name
        path.write_text(text)
        path.chmod(0o755)

    def user(self, number: int) -> None:
        self.program("id", f"#!/bin/bash\necho {number}\n")

    def note(self, name: str) -> None:
        (self.fake / name).touch()

    def log(self, name: str) -> list[str]:
        path = self.fake / name
        return path.read_text().splitlines() if path.exists() else []

    def setup(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {"PATH": str(self.fake), "FAKE": str(self.fake)}
        script = self.project / "scripts" / "setup.sh"
        return subprocess.run(
            [script, *arguments], check=False, env=environ, capture_output=True, text=True, timeout=120
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def on_debian() -> bool:
    release = Path("/etc/os-release")
    return release.exists() and "debian" in release.read_text()


debian = pytest.mark.skipif(not on_debian(), reason="the script reads /etc/os-release, and this is not Debian")


def test_a_machine_that_has_everything_gets_an_environment_and_then_nothing(machine: Machine) -> None:
    machine.program("docker", DOCKER)
    machine.note("engine-runs")
    first = machine.setup()
    assert first.returncode == 0, first.stderr
    assert machine.log("pip.log") == [
        "-m pip install --quiet --disable-pip-version-check --use-pep517 --editable .[dev]"
    ]
    second = machine.setup()
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert len(machine.log("pip.log")) == 1


def test_pytorch_is_installed_once_and_where_it_is_asked_for(machine: Machine) -> None:
    assert machine.setup("--no-docker").returncode == 0
    assert len(machine.log("pip.log")) == 1
    first = machine.setup("--no-docker", "--torch")
    assert first.returncode == 0, first.stderr
    (_, line) = machine.log("pip.log")
    assert line.endswith(" torch==2.13.0 pytorch-lightning==2.6.* lightning==2.6.*")
    assert machine.setup("--torch", "--no-docker").stdout == ""
    assert len(machine.log("pip.log")) == 2


def test_pytorch_that_cannot_be_installed_is_named(machine: Machine) -> None:
    assert machine.setup("--no-docker").returncode == 0
    python = machine.project / ".venv" / "bin" / "python"
    python.write_text(python.read_text().replace('"-m pip "*) echo', '"-m pip "*) exit 1; echo'))
    done = machine.setup("--no-docker", "--torch")
    assert done.returncode == 0, done.stderr
    assert "PyTorch and Lightning: 'pip install torch==" in done.stdout
    assert "(.kit/torch.log)" in done.stdout


def test_an_unknown_word_is_answered_with_the_usage(machine: Machine) -> None:
    done = machine.setup("--torch", "--everything")
    assert done.returncode == 2
    assert "scripts/setup.sh --torch" in done.stderr
    assert machine.log("pip.log") == []


@debian
def test_on_debian_as_root_it_says_what_it_installs_and_installs_it(machine: Machine) -> None:
    for program in ("mmdebstrap", "chromedriver", "docker-registry"):
        (machine.fake / program).unlink()
    machine.note("no-venv")
    machine.program("apt-get", APT)
    machine.program("docker", DOCKER)
    done = machine.setup()
    assert done.returncode == 0, done.stderr
    installed = [line.split()[3:] for line in machine.log("apt.log") if line.startswith("install")]
    assert installed == [["python3-venv"], ["mmdebstrap"], ["chromium", "chromium-driver"], ["docker-registry"]]
    assert all(f"installing {' '.join(names)} with apt" in done.stdout for names in installed)
    assert machine.log("apt.log").count("update") == 1


@debian
def test_a_failing_apt_ends_it_with_apts_own_words(machine: Machine) -> None:
    machine.note("no-network")
    machine.program("apt-get", APT)
    done = machine.setup()
    assert done.returncode != 0
    assert "E: no network" in done.stderr


@debian
def test_docker_engine_is_installed_where_there_is_none(machine: Machine) -> None:
    machine.program(
        "apt-get", APT.replace("touch", f'printf \'{DOCKER}\' >"$FAKE/docker"; chmod +x "$FAKE/docker"; touch')
    )
    done = machine.setup()
    assert done.returncode == 0, done.stderr
    assert any("docker.io iptables" in line for line in machine.log("apt.log"))


def test_azurite_is_installed_once_and_into_the_kit(machine: Machine) -> None:
    (machine.fake / "azurite-blob").unlink()
    machine.program("docker", DOCKER)
    machine.program("npm", NPM)
    machine.note("engine-runs")
    first = machine.setup()
    assert first.returncode == 0, first.stderr
    assert machine.setup().stdout == ""
    (line,) = machine.log("npm.log")
    assert line.startswith("install --prefix .kit/azurite ")
    assert "azurite@" in line


def test_azurite_that_cannot_be_installed_is_named(machine: Machine) -> None:
    (machine.fake / "azurite-blob").unlink()
    machine.program("docker", DOCKER)
    machine.program("npm", "#!/bin/bash\nexit 1\n")
    machine.note("engine-runs")
    done = machine.setup()
    assert done.returncode == 0, done.stderr
    assert "'npm install --prefix .kit/azurite azurite' failed" in done.stdout


def test_without_root_it_installs_nothing_and_says_what_is_missing(machine: Machine) -> None:
    machine.user(1000)
    machine.program("apt-get", APT)
    (machine.fake / "mmdebstrap").unlink()
    done = machine.setup()
    assert done.returncode == 1
    assert "Docker Engine: run 'sudo apt-get install docker.io iptables'" in done.stderr
    assert "sudo apt-get install mmdebstrap" in done.stdout
    assert machine.log("apt.log") == []


def test_on_another_distribution_it_names_the_way_to_get_what_is_missing(machine: Machine) -> None:
    done = machine.setup()
    assert done.returncode == 1
    assert "Docker Engine: install Docker Engine or Docker Desktop and start it" in done.stderr


def test_without_a_fitting_python(machine: Machine) -> None:
    machine.note("no-python")
    for name in ("python3", "python3.12", "python3.10"):
        shutil.copy(machine.fake / "python3.11", machine.fake / name)
    script = machine.project / "scripts" / "setup.sh"
    script.write_text(script.read_text().replace(" /usr/bin/python3;", ";"))
    done = machine.setup()
    assert done.returncode == 1
    assert "a Python from 3.10 to 3.12" in done.stderr


def test_a_daemon_of_the_users_choice_is_not_started(machine: Machine) -> None:
    machine.program("docker", DOCKER)
    machine.program("dockerd", '#!/bin/bash\ntouch "$FAKE/dockerd-ran"\n')
    script = machine.project / "scripts" / "setup.sh"
    environ = {"PATH": str(machine.fake), "FAKE": str(machine.fake), "DOCKER_HOST": "unix:///nowhere.sock"}
    done = subprocess.run([script], check=False, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "DOCKER_HOST" in done.stderr
    assert not (machine.fake / "dockerd-ran").exists()


def test_no_docker_needs_no_docker(machine: Machine) -> None:
    done = machine.setup("--no-docker")
    assert done.returncode == 0, done.stderr


no_systemd = pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd starts the daemon here")


@no_systemd
def test_a_daemon_that_does_not_run_is_started_and_waited_for(machine: Machine) -> None:
    machine.program("docker", DOCKER)
    machine.program("dockerd", '#!/bin/bash\necho listening\nsleep 0.3\ntouch "$FAKE/engine-runs"\n')
    done = machine.setup()
    assert done.returncode == 0, done.stderr
    assert "starting dockerd" in done.stdout
    assert (machine.project / ".kit" / "dockerd.log").read_text() == "listening\n"


@no_systemd
def test_a_daemon_that_ends_at_once_is_reported_with_its_last_words(machine: Machine) -> None:
    machine.program("docker", DOCKER)
    machine.program("dockerd", "#!/bin/bash\necho 'failed to mount overlay'\nexit 1\n")
    done = machine.setup()
    assert done.returncode == 1
    assert "failed to mount overlay" in done.stderr
