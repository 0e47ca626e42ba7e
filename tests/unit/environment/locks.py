"""Locks to test with: a small one by hand, big ones by number, arbitrary ones by hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from himl_container.environment.model import BasePin, Declared, Lock, LockedConda, LockedWheel

CHANNEL = "https://conda.anaconda.org/conda-forge"

text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
sha256 = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
conda_name = st.from_regex(r"[a-z0-9_][a-z0-9_.-]{0,12}", fullmatch=True)
version = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}", fullmatch=True)
texts = st.lists(text, max_size=4).map(tuple)
number = st.integers(0, 2**53)


@st.composite
def conda_packages(draw: st.DrawFn) -> LockedConda:
    name, release, build = draw(conda_name), draw(version), draw(st.from_regex(r"[a-z0-9_]{1,9}", fullmatch=True))
    subdir = draw(st.sampled_from(["linux-64", "noarch"]))
    suffix = draw(st.sampled_from([".conda", ".tar.bz2"]))
    channel = draw(st.sampled_from([CHANNEL, "http://127.0.0.1:8000", "file:///srv/a%20channel"]))
    return LockedConda(
        name=name,
        version=release,
        build=build,
        build_number=draw(number),
        subdir=subdir,
        url=f"{channel}/{subdir}/{name}-{release}-{build}{suffix}",
        channel=channel,
        sha256=draw(sha256),
        size=draw(number),
        md5=draw(st.just("") | st.from_regex(r"[0-9a-f]{32}", fullmatch=True)),
        depends=draw(texts),
        constrains=draw(texts),
        noarch=draw(st.sampled_from(["", "python", "generic"])),
        license=draw(text),
        timestamp=draw(number),
        python_site_packages_path=draw(st.sampled_from(["", "lib/python3.13t/site-packages"])),
        track_features=draw(texts),
    )


@st.composite
def wheels(draw: st.DrawFn) -> LockedWheel:
    name, release = draw(st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)), draw(version)
    kind = draw(st.sampled_from(["index", "private", "sdist"]))
    filename = f"{name}-{release}-py3-none-any.whl"
    from_sdist = kind == "sdist"
    return LockedWheel(
        name=name,
        version=release,
        filename=filename,
        sha256=draw(sha256),
        size=draw(number),
        url=f"https://files.example/{filename}" if kind == "index" else "",
        private=kind == "private",
        sdist_url=f"https://files.example/{name}-{release}.tar.gz" if from_sdist else "",
        sdist_sha256=draw(sha256) if from_sdist else "",
        sdist_size=draw(number) if from_sdist else 0,
        build_requires=draw(texts) if from_sdist else (),
    )


variables = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="="), min_size=1, max_size=9),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    max_size=4,
).map(lambda found: tuple(sorted(found.items())))

locks = st.builds(
    Lock,
    platform=st.sampled_from(["linux-64", "linux-aarch64", "linux-riscv64"]),
    python_version=st.sampled_from(["3.10.4", "3.12.0", "3.13.0rc1"]),
    base=st.builds(BasePin, st.just("ubuntu:22.04"), digest=sha256.map("sha256:{}".format))
    | st.builds(BasePin, st.just("local/base:1"), rootfs=sha256.map("sha256:{}".format)),
    virtual_packages=texts,
    variables=variables,
    declared=st.builds(
        Declared,
        texts,
        texts,
        texts,
        texts,
        texts,
        texts,
        text,
        st.just("linux-64"),
        texts,
        pypi_names=texts,
        constraints=texts,
    ),
    conda=st.lists(conda_packages(), max_size=4, unique_by=lambda record: record.name).map(tuple),
    wheels=st.lists(wheels(), max_size=4, unique_by=lambda wheel: wheel.name).map(
        lambda found: tuple(sorted(found, key=lambda wheel: wheel.name))
    ),
)


def conda(name: str, release: str = "1.0", **more: object) -> LockedConda:
    """A plausible Conda package."""
    values: dict[str, object] = {
        "name": name,
        "version": release,
        "build": "h1_0",
        "build_number": 0,
        "subdir": "linux-64",
        "url": f"{CHANNEL}/linux-64/{name}-{release}-h1_0.conda",
        "channel": CHANNEL,
        "sha256": "a" * 64,
        "size": 1234,
    }
    return LockedConda(**(values | more))  # type: ignore[arg-type]


def wheel(name: str, release: str = "1.0", **more: object) -> LockedWheel:
    """A plausible wheel of an index."""
    filename = f"{name.replace('-', '_')}-{release}-py3-none-any.whl"
    values: dict[str, object] = {
        "name": name,
        "version": release,
        "filename": filename,
        "sha256": "b" * 64,
        "size": 4321,
        "url": f"https://files.example/{filename}",
    }
    return LockedWheel(**(values | more))  # type: ignore[arg-type]


def lock(*, conda_count: int = 0, wheel_count: int = 0, **more: object) -> Lock:
    """A plausible lock with python and numbered packages."""
    packages = [conda("python", "3.11.7")]
    packages += [
        conda(f"pkg{n:03}", depends=("python >=3.11,<3.12.0a0", *(f"dep{m} >=1.{m}" for m in range(6))), license="MIT")
        for n in range(conda_count)
    ]
    values: dict[str, object] = {
        "platform": "linux-64",
        "python_version": "3.11.7",
        "base": BasePin("ubuntu:22.04", digest="sha256:" + "c" * 64),
        "virtual_packages": ("__glibc=2.28", "__linux=5.10", "__unix=0"),
        "variables": (),
        "declared": Declared((CHANNEL,), ("python",), (), (), (), (), "ubuntu:22.04", "linux-64", ("__glibc=2.28",)),
        "conda": tuple(packages),
        "wheels": tuple(wheel(f"wheel{n:03}") for n in range(wheel_count)),
    }
    return Lock(**(values | more))  # type: ignore[arg-type]
