"""Settings: three sources, one frozen value, and an error with a place for everything that is wrong."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.config.images import cuda_image, has_host, is_reference, is_repository, repository_for
from himl_container.config.sources import Raw, line_of
from himl_container.config.values import apt, image_name, string, url
from himl_container.errors import InputError
from himl_container.find import find_upwards
from himl_container.settings import DEFAULT_BASE_IMAGE, Settings, default_cache_dir, load_settings


def load(
    folder: Path, toml: str = "", flags: dict[str, object] | None = None, environ: dict[str, str] | None = None
) -> Settings:
    if toml:
        (folder / "pyproject.toml").write_text(toml)
    return load_settings(flags or {}, cwd=folder, environ=environ or {})


def table(text: str) -> str:
    return "[project]\nname = 'x'\n\n[tool.himl-container]\n" + text


def test_defaults_come_from_the_place(tmp_path: Path) -> None:
    folder = tmp_path / "Mein Projekt_é"
    folder.mkdir()
    (folder / "environment.yml").write_text("dependencies: [python]\n")
    settings = load(folder)
    assert settings.conda_files == (folder / "environment.yml",)
    assert settings.root == folder
    assert settings.lock_file == folder / "pylock.himl.toml"
    assert settings.image_name == "himl/mein-projekt-e"
    assert settings.base_image == DEFAULT_BASE_IMAGE
    assert settings.platform == "linux-64"


def test_every_key_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "extra.j2").write_text("")
    settings = load(
        tmp_path,
        table(
            """
conda-files = ["a.yml", "sub/b.yml"]
lock-file = "locks/x.toml"
cache-dir = "cache"
wheels = "mylib-1-py3-none-any.whl"
pip-index-url = "https://${USER_1}:${GONE}@host/simple"
pip-extra-index-url = ["https://one/simple", "file:///two"]
base-image = "host.example:5000/team/base:1.2@sha256:%s"
glibc = "2.31"
platform = "linux-64"
apt = ["git", "curl=7.88.1-10+deb12u5", "libc6:amd64", "git"]
system-lines = ["RUN true", "ENV A=$(x)\\nENV B=1"]
template = "extra.j2"
test = "python -c 'import x'"
test-imports = ["a.b", "c"]
image-name = "team/train"
skip-post-link = ["Foo"]

[tool.himl-container.channel-mirrors]
conda-forge = "https://mirror/conda-forge"

[tool.himl-container.pypi-names]
pytorch = "Torch_X"

[tool.himl-container.run]
shm-size = "2g"
env = { A = "1" }
"""
            % ("0" * 64)
        ),
        environ={"USER_1": "me"},
    )
    assert settings.conda_files == (tmp_path / "a.yml", tmp_path / "sub/b.yml")
    assert settings.lock_file == tmp_path / "locks/x.toml"
    assert settings.cache_dir == tmp_path / "cache"
    assert settings.wheels == (tmp_path / "mylib-1-py3-none-any.whl",)
    assert settings.pip_index_url == "https://me:${GONE}@host/simple"
    assert settings.pip_extra_index_urls == ("https://one/simple", "file:///two")
    assert settings.apt == ("curl=7.88.1-10+deb12u5", "git", "libc6:amd64")
    assert settings.system_lines == ("RUN true", "ENV A=$(x)", "ENV B=1")
    assert settings.template == tmp_path / "extra.j2"
    assert settings.test == ("python -c 'import x'",)
    assert settings.test_imports == ("a.b", "c")
    assert settings.channel_mirrors == (("conda-forge", "https://mirror/conda-forge"),)
    assert settings.pypi_names == (("pytorch", "torch-x"),)
    assert settings.skip_post_link == ("foo",)
    assert settings.run == {"shm-size": "2g", "env": {"A": "1"}}
    assert settings.source == tmp_path / "pyproject.toml"


def test_later_sources_win_and_tables_are_joined(tmp_path: Path) -> None:
    toml = table(
        'image-name = "from/file"\nglibc = "2.30"\ncuda = "12.4"\napt = ["git"]\n'
        "[tool.himl-container.channel-mirrors]\na = 'https://a'\nb = 'https://b'\n"
    )
    settings = load(
        tmp_path,
        toml,
        {"image_name": "from/flag", "channel_mirrors": ("b=https://other", "https://h/c?x=1=file:///m"), "glibc": None},
        {
            "HIML_CONTAINER_IMAGE_NAME": "from/variable",
            "HIML_CONTAINER_GLIBC": "2.35",
            "HIML_CONTAINER_APT": "curl wget",
            "HIML_CONTAINER_WHEELS": "",
        },
    )
    assert settings.image_name == "from/flag"
    assert settings.glibc == "2.35"
    assert settings.apt == ("curl", "wget")
    assert settings.cuda == "12.4"
    assert settings.channel_mirrors == (
        ("a", "https://a"),
        ("b", "https://other"),
        ("https://h/c?x=1", "file:///m"),
    )


def test_relative_paths_start_where_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(table('wheels = ["w/a.whl"]\n'))
    below = tmp_path / "below"
    below.mkdir()
    settings = load_settings({"conda_files": (Path("e.yml"),)}, cwd=below, environ={})
    assert settings.wheels == (tmp_path / "w/a.whl",)
    assert settings.conda_files == (below / "e.yml",)
    assert settings.root == tmp_path
    assert settings.lock_file == below / "pylock.himl.toml"


def test_a_pyproject_without_our_table_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(table('image-name = "outer/one"\n'))
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "pyproject.toml").write_text("[project]\nname='himl-container-user'\n")
    assert load(inner).image_name == "outer/one"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("conda-file = 'x'", "unknown key 'conda-file'"),
        ("cuda = 12.4", "is a number, not a string"),
        ("cuda = '12'", "not a CUDA version"),
        ("cuda = '12.4\\n'", "not a CUDA version"),
        ("glibc = 'musl'", "not a version of the GNU C library"),
        ("platform = 'win-64'", "not a platform"),
        ("apt = ['a b']", "not the name of a Debian package"),
        ("apt = ['-oDebug=1']", "not the name of a Debian package"),
        ("apt = 7", "is a number, not a list"),
        ("apt = [1]", "is a number, not a string"),
        ('system-lines = ["a\\u0000b"]', "NUL"),
        ("image-name = 'Team/x'", "not a repository name"),
        ("image-name = 'x:1'", "not a repository name"),
        ("base-image = 'x y'", "is not an image"),
        ("base-image = 'x@sha256:12'", "is not an image"),
        ("template = 'nowhere.j2'", "there is no file"),
        ("test = ['']", "not a command"),
        ("test-imports = ['a-b']", "not the name of a Python module"),
        ("pip-index-url = 'ftp://x'", "is not a URL that starts with"),
        ("pip-index-url = 'https://a b/'", "is not a URL"),
        ("pip-extra-index-url = [['x']]", "is a list, not a string"),
        ("channel-mirrors = 'x'", "is a string, not a table"),
        ("channel-mirrors = { 'a b' = 'https://x' }", "not the name or URL of a channel"),
        ("pypi-names = { x = 'a b' }", "not the name of a Python distribution"),
        ("skip-post-link = ['a;b']", "not the name of a Conda package"),
        ("run = 3", "is a number, not a table"),
        ("run = { Bad_Key = 1 }", "has the key 'Bad_Key'"),
        ("run = { env = [[1]] }", "neither a plain value"),
        ("wheels = ['']", "is empty"),
    ],
)
def test_a_bad_value_names_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, table("# a comment\n" + line + "\n"))
    assert message in str(caught.value)
    assert caught.value.where == f"{tmp_path / 'pyproject.toml'}:6"


def test_a_misspelt_key_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, table("base_image = 'x'\n"))
    assert "base-image" in caught.value.hint


def test_bad_variables_and_flags_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, environ={"HIML_CONTAINER_CUDA": "x"})
    assert caught.value.where == "HIML_CONTAINER_CUDA"
    with pytest.raises(InputError) as caught:
        load(tmp_path, flags={"channel_mirrors": ("x",)})
    assert caught.value.where == "--channel-mirror"


def test_an_unknown_variable_is_a_warning(tmp_path: Path) -> None:
    settings = load(tmp_path, environ={"HIML_CONTAINER_BASE_IMGE": "x", "HIML_CONTAINER_DEBUG": "1"})
    assert [text.split(":")[0] for text in settings.warnings] == ["HIML_CONTAINER_BASE_IMGE"]


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"[tool.himl-container\n", ":1"),
        (b"a = 1\n[tool.himl-container]\nb = \n", ":3"),
        (b"# himl-container\n\xff", ":2"),
    ],
)
def test_a_broken_pyproject(tmp_path: Path, content: bytes, where: str) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    assert caught.value.where == f"{path}{where}"


def test_a_table_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a table"):
        load(tmp_path, "tool.himl-container = 3\n")


def test_cuda_chooses_the_base_unless_one_is_named(tmp_path: Path) -> None:
    assert "cuda12.4" in load(tmp_path, table("cuda = '12.1'\n")).base_image
    assert load(tmp_path, flags={"cuda": "11.8", "base_image": "debian:12"}).base_image == "debian:12"
    with pytest.raises(InputError) as caught:
        load(tmp_path, flags={"cuda": "13.9"})
    assert "base-image" in caught.value.hint


def test_cuda_images() -> None:
    assert cuda_image("11.8") == "mcr.microsoft.com/azureml/openmpi4.1.0-cuda11.8-cudnn8-ubuntu22.04"
    assert cuda_image("12.7.1") == "mcr.microsoft.com/azureml/openmpi5.0-cuda12.8-ubuntu24.04"
    assert cuda_image("10.2") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[tool.himl-container]\napt = ["x"]', 2),
        ('[ tool . "himl-container" ]  # c\n\n"apt" = []', 3),
        ("[tool]\nhiml-container.apt = []", 2),
        ("tool.himl-container.apt = []", 1),
        ("[other]\napt = 1\n[tool.himl-container.apt]\nx = 1", 3),
        ("[tool.himl-container]\nx = 1", 1),
        ("[other]\napt = 1", 0),
    ],
)
def test_the_line_of_a_key(text: str, expected: int) -> None:
    assert line_of(text, "tool.himl-container", "apt") == expected


def test_find_upwards(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    wanted = tmp_path / "environment.yml"
    wanted.write_text("")
    (deep / "environment.yml").mkdir()
    assert find_upwards("environment.yml", start=deep, environ={}) == wanted
    bound = {"PYTHONPATH": f"/nowhere:{tmp_path / 'a'}/"}
    assert find_upwards("environment.yml", start=deep, environ=bound) is None
    # The folder on PYTHONPATH itself is still looked into.
    (tmp_path / "a" / "environment.yml").write_text("")
    assert find_upwards("environment.yml", start=deep, environ=bound) == tmp_path / "a" / "environment.yml"
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "a" / "b")
    assert find_upwards("environment.yml", start=deep, environ={"PYTHONPATH": str(link)}) is None


RAW = st.text(max_size=30)


@given(RAW)
def test_no_name_gets_through_with_a_control_character(text: str) -> None:
    raw = Raw(text, "x", Path())
    for parse in (string, image_name, url({}), lambda item: apt(Raw([item.value], "x", Path()))[0]):
        try:
            value = parse(raw)
        except InputError:
            continue
        assert all(ord(character) >= 32 and ord(character) != 127 for character in str(value))


@given(RAW)
def test_a_folder_always_gives_a_valid_repository(text: str) -> None:
    assert is_repository(repository_for(text))


@given(st.from_regex(r"[a-z0-9:/@._\-\n $`]{1,40}"))
def test_an_accepted_reference_is_safe_in_a_dockerfile(text: str) -> None:
    if is_reference(text):
        assert not set(text) & set("\n $`\"'\\")


def test_the_documentation_has_every_setting() -> None:
    text = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
    documented = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
    fields = {name.replace("_", "-") for name in Settings.__dataclass_fields__}
    fields -= {"root", "source", "warnings"}
    fields = {{"pip-extra-index-urls": "pip-extra-index-url"}.get(name, name) for name in fields}
    assert fields <= documented
    assert all(f"`{cuda_image(version)}`" in text for version in ("11.8", "12.4", "12.5", "12.6", "12.8"))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere platformdirs itself is asked")
@pytest.mark.parametrize("folder", ["/x/cache", "relative", "", " "])
def test_the_cache_is_where_platformdirs_says(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    monkeypatch.setenv("XDG_CACHE_HOME", folder)
    assert default_cache_dir() == Path(platformdirs.user_cache_dir("himl-container"))
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_cache_dir() == Path(platformdirs.user_cache_dir("himl-container"))


COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
HOST = rf"(?:(?:{LABEL}(?:\.{LABEL})+|localhost)(?::[0-9]{{1,5}})?|(?:{LABEL}|\[[0-9a-fA-F:]+\]):[0-9]{{1,5}})"
NAME = rf"(?:{HOST}/)?{COMPONENT}(?:/{COMPONENT})*"
PIECES = st.sampled_from(["a", "B", "0", ".", "_", "__", "-", "/", ":", "@", "5000", "localhost", "[::1]", "\n"])


@given(st.lists(PIECES | st.just("@sha256:" + "0" * 64), max_size=9).map("".join))
def test_names_of_images_are_those_of_dockers_grammar(text: str) -> None:
    """The grammar of github.com/distribution/reference as one expression."""
    tagged = rf"{NAME}(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?"
    assert is_repository(text) == (re.fullmatch(NAME, text) is not None)
    assert is_reference(text) == (re.fullmatch(tagged, text) is not None)
    assert has_host(text) == (re.fullmatch(rf"(?s:{HOST}/.*)", text) is not None)
