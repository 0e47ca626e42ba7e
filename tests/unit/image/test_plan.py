from __future__ import annotations

import dataclasses

from assembly import lock_of
from hypothesis import given
from hypothesis import strategies as st

from himl_container.environment.model import Lock, LockedConda, LockedWheel
from himl_container.image.plan import BIG, MEDIUM, MOST_LAYERS, dependency_name, history, plan_layers

FORGE = "https://conda.anaconda.org/conda-forge"


def conda(name: str, size: int = 1000, depends: tuple[str, ...] = (), sha256: str = "") -> LockedConda:
    url = f"{FORGE}/linux-64/{name}-1.0-0.conda"
    return LockedConda(name, "1.0", "0", 0, "linux-64", url, FORGE, sha256 or name, size, depends=depends)


def wheel(name: str, size: int = 1000, *, private: bool = False) -> LockedWheel:
    return LockedWheel(name, "1.0", f"{name}-1.0-py3-none-any.whl", name, size, private=private)


LOCK = lock_of(
    [
        conda("zlib"),
        conda("mkl", BIG),
        conda("python", BIG // 2, ("zlib",)),
        *(conda(f"lib{n}") for n in range(40)),
        *(conda(f"medium{n}", MEDIUM) for n in range(40)),
        conda("numpy", BIG + 1, ("python >=3.11,<3.12", "mkl")),
        conda("attrs", depends=("python >=3.9",)),
    ],
    [wheel("torch", BIG), *(wheel(f"small{n}") for n in range(20)), wheel("mine", BIG * 2, private=True)],
)


def layers(lock: Lock) -> dict[str, str]:
    return {plan.name: plan.key for plan in plan_layers(lock)}


def changed(one: Lock, other: Lock) -> set[str]:
    before, after = layers(one), layers(other)
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_large_things_lie_below_small_ones_and_the_users_own_on_top() -> None:
    names = [plan.name for plan in plan_layers(LOCK)]

    assert names[0] == "conda:python"
    assert sorted(names[1:4]) == ["conda:mkl", "conda:numpy", "pip:torch"]
    assert names[-2:] == ["himl", "wheel:mine"]
    kinds = [name.rstrip("0123456789") for name in names[4:-2]]
    assert list(dict.fromkeys(kinds)) == ["conda:medium-", "conda:small-", "pip:bin-"]
    assert kinds.count("conda:medium-") == 8
    assert kinds.count("conda:small-") == 4
    assert kinds.count("pip:bin-") == 2


def test_what_has_a_layer_of_its_own_is_ordered_by_size_and_not_moved_by_a_little_more() -> None:
    packages = [conda("a", 6_000_000), conda("b", 900_000_000), conda("c", 70_000_000), conda("d", 7_000_000)]

    assert [plan.name for plan in plan_layers(lock_of(packages))][:-1] == ["conda:b", "conda:c", "conda:a", "conda:d"]


def test_only_so_many_packages_have_a_layer_of_their_own_because_an_image_may_have_128() -> None:
    packages = [conda(f"p{n:03}", BIG + n) for n in range(200)]

    plans = plan_layers(lock_of(packages))

    assert len(plans) <= MOST_LAYERS + 20
    assert {plan.name for plan in plans} >= {f"conda:p{n:03}" for n in range(200 - MOST_LAYERS, 200)}


def test_every_package_is_in_exactly_one_layer() -> None:
    plans = plan_layers(LOCK)

    assert sorted(p.name for plan in plans for p in plan.conda) == sorted(p.name for p in LOCK.conda)
    assert sorted(w.name for plan in plans for w in plan.wheels) == sorted(w.name for w in LOCK.wheels)


def test_a_new_version_of_a_package_changes_its_layer_and_the_history_alone() -> None:
    other = tuple(dataclasses.replace(p, version="2.0", sha256="new") if p.name == "lib7" else p for p in LOCK.conda)

    difference = changed(LOCK, dataclasses.replace(LOCK, conda=other))

    assert len(difference) == 2
    assert "himl" in difference


def test_another_package_changes_one_bin_and_the_history() -> None:
    difference = changed(LOCK, dataclasses.replace(LOCK, conda=(*LOCK.conda, conda("another"))))

    assert len(difference) == 2


def test_another_wheel_leaves_the_conda_layers_and_the_history() -> None:
    other = tuple(dataclasses.replace(w, sha256="new") if w.private else w for w in LOCK.wheels)

    assert changed(LOCK, dataclasses.replace(LOCK, wheels=other)) == {"wheel:mine"}


def test_another_python_changes_what_is_compiled_by_it_and_nothing_else() -> None:
    other = tuple(dataclasses.replace(p, sha256="patched") if p.name == "python" else p for p in LOCK.conda)

    difference = changed(LOCK, dataclasses.replace(LOCK, conda=other))

    assert {"conda:python", "conda:numpy", "pip:torch", "wheel:mine"} <= difference
    assert "conda:mkl" not in difference
    bins = [name for name in difference if name.startswith("conda:small-")]
    assert len(bins) == 1, "only the bin of attrs has modules"


def test_the_order_of_the_lock_does_not_matter() -> None:
    other = dataclasses.replace(LOCK, conda=LOCK.conda[::-1], wheels=LOCK.wheels[::-1])

    assert plan_layers(other) == plan_layers(LOCK)


def test_a_path_that_a_package_loses_is_left_out_of_its_layer() -> None:
    plans = {plan.name: plan for plan in plan_layers(LOCK, excluded={"mkl": ("share/LICENSE",)})}

    assert plans["conda:mkl"].excluded == ("share/LICENSE",)
    assert plans["conda:mkl"].lost == (("mkl", "share/LICENSE"),)
    assert {name for name, key in layers(LOCK).items() if plans[name].key != key} == {"conda:mkl"}


def test_an_environment_without_python_and_without_packages() -> None:
    assert [plan.name for plan in plan_layers(lock_of([]))] == ["himl"]


@given(st.text())
def test_the_history_has_one_line_for_each_package_whatever_its_build_is_called(text: str) -> None:
    package = dataclasses.replace(conda("a"), build=text, channel=text)

    lines = history(lock_of([package])).decode(errors="surrogatepass").split("\n")

    assert [line[:1] for line in lines] == ["=", "#", "+", "#", ""]


def test_names_of_dependencies() -> None:
    texts = ["numpy", "numpy >=1.26,<2", "numpy>=1.26", "conda-forge::NumPy 1.* py311*", "__glibc >=2.17", "", "=="]

    names = [dependency_name(text) for text in texts]

    assert names == ["numpy", "numpy", "numpy", "numpy", "__glibc", "", ""]
