"""The rendered Dockerfile: its text, and that it says the same as the configuration of the composed image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from himl_container.environment.model import BasePin
from himl_container.errors import InputError
from himl_container.image import config, templates
from himl_container.image.dockerfile import (
    base_reference,
    layer_file,
    needs_docker,
    render_dockerfile,
    render_system,
)
from himl_container.image.model import LayerPlan, SystemPlan
from image import dockerfile_reader as reader
from image import plans

GOLDEN = Path(__file__).parent.parent.parent / "golden"

PLAN = plans.plan(
    apt=("curl=7.88.1-10+deb12u5", "libgl1"),
    lines=("RUN mkdir -p /opt/tools \\", "    && echo 'x' > /opt/tools/y", "ENV TOOLS=/opt/tools"),
    layers=(
        LayerPlan("conda:python", "k1", conda=(plans.conda("python", "3.11.7"),)),
        LayerPlan("conda:bin-03", "k2", conda=tuple(plans.conda(f"package-{n}") for n in range(9))),
        LayerPlan("wheel:my-lib", "k3", wheels=(plans.wheel("my-lib", "0.1", private=True),)),
        LayerPlan("himl", "k4"),
    ),
    environment=(("GREETING", 'say "hi" for $5 \\ #1'), ("OMP_NUM_THREADS", "1")),
    labels=(("himl.fingerprint", "cd" * 32), ("org.example/quote", "it's")),
)
ACTIVATION = {"GDAL_DATA": "/opt/himl/share/gdal", "PATH": "/opt/himl/extra/bin:${PATH}"}


def check_golden(name: str, text: str) -> None:
    """Compare with a golden file; ``HIML_UPDATE_GOLDEN=1`` writes it instead."""
    path = GOLDEN / name
    if os.environ.get("HIML_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_the_whole_dockerfile() -> None:
    check_golden("Dockerfile.full", render_dockerfile(PLAN, activation=ACTIVATION))


def test_the_smallest_dockerfile() -> None:
    plan = plans.plan(base=BasePin("himl-base:kit", rootfs="sha256:" + "12" * 32))
    check_golden("Dockerfile.smallest", render_dockerfile(plan))


def test_the_system_part_is_in_the_same_words() -> None:
    system = render_system(PLAN.system, PLAN.base)
    assert render_dockerfile(PLAN, activation=ACTIVATION).startswith(system)
    assert [name for name, _ in reader.instructions(system)] == ["FROM", "USER", "RUN", "RUN", "ENV"]


def test_a_users_template_replaces_blocks(tmp_path: Path) -> None:
    template = tmp_path / "mine.j2"
    template.write_text(
        '{% extends "Dockerfile.j2" %}\n'
        "{% block system %}{{ super() }}RUN id\n{% endblock %}\n"
        "{% block extra %}LABEL built.for={{ repository | quoted }}\n"
        'CMD {{ ["python", "-V"] | exec }}\n{% endblock %}\n'
    )
    check_golden("Dockerfile.template", render_dockerfile(PLAN, template=template))
    assert needs_docker(template)
    assert not needs_docker(None)


@pytest.mark.parametrize(
    ("text", "why", "line"),
    [
        ("{% block extra %}{% endblock %}", "does not extend", 1),
        ('{% extends "Dockerfile.j2" %}\n{% block extr %}{% endblock %}', "no block 'extr'", 2),
        ('{% extends "Dockerfile.j2" %}\n{% block extra %}{{ nothing | quoted }}{% endblock %}', "nothing", 2),
        ('{% extends "Dockerfile.j2" %}\n{% block extra %}\n{{ repository }}{% endblock %}', "without quoting", 3),
        ('{% extends "Dockerfile.j2" %}\n{% block extra %}{% if %}{% endblock %}', "Expected an expression", 2),
        ('{% extends "Dockerfile.j2" %}\n{% block extra %}{% include "/etc/passwd" %}{% endblock %}', "not exist", 0),
        ('{% extends "Dockerfile.j2" %}\n{% block extra %}{{ "".__class__.mro() }}{% endblock %}', "unsafe", 2),
        ('{% extends "Dockerfile.j2" %}\n{% block extra %}{{ 1 // 0 }}{% endblock %}', "zero", 2),
    ],
)
def test_a_wrong_template_is_an_error_with_its_line(tmp_path: Path, text: str, why: str, line: int) -> None:
    template = tmp_path / "mine.j2"
    template.write_text(text)
    with pytest.raises(InputError) as caught:
        render_dockerfile(PLAN, template=template)
    assert why in str(caught.value)
    assert str(caught.value).startswith(f"{template}:{line}" if line else str(template))


def test_a_template_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the template"):
        needs_docker(tmp_path / "absent.j2")


def test_the_templates_are_found() -> None:
    assert (templates.templates_folder() / templates.MAIN).is_file()


@pytest.mark.parametrize(
    ("pin", "reference"),
    [
        (BasePin("debian:12", plans.DIGEST), f"debian@{plans.DIGEST}"),
        (BasePin("localhost:5000/a/b:1", plans.DIGEST), f"localhost:5000/a/b@{plans.DIGEST}"),
        (BasePin("localhost:5000/a/b", plans.DIGEST), f"localhost:5000/a/b@{plans.DIGEST}"),
        (BasePin(f"a/b:1@{plans.DIGEST}", plans.DIGEST), f"a/b@{plans.DIGEST}"),
        (BasePin("himl-base:kit", rootfs=plans.DIGEST), "himl-base:kit"),
    ],
)
def test_the_base_is_named_exactly(pin: BasePin, reference: str) -> None:
    assert base_reference(pin) == reference


def test_files_of_layers_are_plain_and_sorted() -> None:
    assert layer_file(3, "conda:mkl") == "layers/003-conda-mkl.tar"
    assert layer_file(0, "../../Ä $x\n") == "layers/000-x.tar"
    assert layer_file(1, "::") == "layers/001-layer.tar"


names = st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True).filter(lambda name: name not in config._RESERVED)
values = st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=30)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    environment=st.dictionaries(names, values, max_size=4),
    activation=st.dictionaries(names, values, max_size=3),
    labels=st.dictionaries(st.from_regex(r"[a-z][a-z.]{0,8}[a-z]", fullmatch=True), values, max_size=3),
    layer_name=st.text(max_size=20),
    package=st.text(max_size=20),
)
def test_docker_reads_what_the_composed_image_has(
    environment: dict[str, str], activation: dict[str, str], labels: dict[str, str], layer_name: str, package: str
) -> None:
    """Whatever names and values are, Docker sees our instructions only, and sets what the composed image has."""
    plan = plans.plan(
        environment=sorted(environment.items()),
        labels=sorted(labels.items()),
        layers=(LayerPlan(layer_name, "k", conda=(plans.conda(package),)),),
    )
    found = reader.instructions(render_dockerfile(plan, activation=activation))
    kinds = [name for name, _ in found]
    assert kinds == ["FROM", "USER", "ADD", "ENV", "ENV", *(["LABEL"] if labels else []), "ENTRYPOINT", "CMD"]
    for base_env in ([], ["PATH=/base/bin", "LANG=C"]):
        inherited = dict(entry.split("=", 1) for entry in base_env)
        env = dict(inherited)
        for name, rest in found:
            if name == "ENV":
                env.update(reader.pairs(rest, env))
        expected = config.image_config({"Env": base_env}, plan, activation)
        assert [f"{name}={value}" for name, value in env.items()] == expected["Env"]
        assert reader.words(dict(found)["CMD"]) == expected["Cmd"]
        assert dict(found)["USER"] == expected["User"]
    assert (reader.pairs(dict(found)["LABEL"], {}) if labels else {}) == labels


def test_configuration_keeps_the_base_and_drops_the_build() -> None:
    base = {
        "Env": ["LANG=C.UTF-8", "PATH=/usr/bin", "A=old"],
        "Labels": {"base": "1", "himl.x": "old"},
        "WorkingDir": "/work",
        "Entrypoint": ["/start.sh"],
        "Cmd": ["bash"],
        "User": "nobody",
        "Hostname": "abc",
        "Image": "sha256:1",
        "OnBuild": ["RUN id"],
        "ExposedPorts": {"80/tcp": {}},
    }
    plan = plans.plan(environment=[("A", "new")], labels=[("himl.x", "new")])
    assert config.image_config(base, plan, {"PATH": "${PATH}:/late", "Z": "1"}) == {
        "Env": [
            "LANG=C.UTF-8",
            "PATH=/opt/himl/bin:/usr/bin:/late",
            "A=new",
            "CONDA_PREFIX=/opt/himl",
            "CONDA_DEFAULT_ENV=/opt/himl",
            "Z=1",
        ],
        "Labels": {"base": "1", "himl.x": "new"},
        "WorkingDir": "/work",
        "Cmd": ["python"],
        "User": "0:0",
        "ExposedPorts": {"80/tcp": {}},
    }


def test_the_user_of_the_system_lines_stays() -> None:
    plan = plans.plan(lines=("USER worker",))
    assert config.image_config({"User": "worker"}, plan, {})["User"] == "worker"


@pytest.mark.parametrize("name", ["PATH", "CONDA_PREFIX", "CONDA_DEFAULT_ENV"])
def test_variables_that_are_ours_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="set by the image itself"):
        config.image_config({}, plans.plan(environment=[(name, "x")]), {})


def test_debian_packages_are_arguments_not_shell() -> None:
    text = render_system(SystemPlan(("libgl1", "curl")), "debian:12")
    (run,) = [rest for name, rest in reader.instructions(text) if name == "RUN"]
    assert reader.words(run)[:2] == ["/bin/sh", "-ec"]
    assert reader.words(run)[3:] == ["apt", "libgl1", "curl"]
    with pytest.raises(InputError, match="not the name of a Debian package"):
        render_system(SystemPlan(("curl; id",)), "debian:12")
