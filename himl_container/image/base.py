"""The base image: pinned exactly in the lock, and brought into the daemon exactly as pinned."""

from __future__ import annotations

from himl_container.environment.model import BasePin
from himl_container.errors import BuildError, RegistryError
from himl_container.image.compose import IMAGE_ARCHITECTURES
from himl_container.image.engine import Engine
from himl_container.image.model import ImageInfo
from himl_container.progress import Reporter
from himl_container.registry.reference import parse_reference

_WITHOUT_REGISTRY = (
    "Check the name and 'docker login'. Without a registry, 'himl-container base create' makes a base image from a "
    "Debian mirror, and 'himl-container base load' brings one from a file; then name it with --base-image."
)


def pin_base(reference: str, *, engine: Engine, fresh: bool = False) -> BasePin:
    """Return the exact image behind a reference.

    A registry's digest is preferred, because every machine can fetch it; an image that no registry knows is pinned by
    its layers.

    :param fresh: ask the registry first what the tag means today, instead of taking what the daemon has.
    :raises RegistryError: the daemon does not have the image, and no registry gives it.
    :raises InputError: the reference is not the name of an image.
    """
    name = parse_reference(reference)
    if name.digest:
        return BasePin(reference, digest=name.digest)
    local = engine.inspect(reference)
    if local is None:
        return BasePin(reference, digest=_asked(reference, engine))
    known = _digest_of(local, name.repository)
    if not known and not fresh:
        return BasePin(reference, rootfs=local.rootfs)
    if known and not fresh and not engine.info().containerd_store:
        return BasePin(reference, digest=known)
    # containerd's store gives a digest to every image, whether or not a registry has it, so the registry has to tell.
    try:
        asked = engine.registry_digest(reference)
    except RegistryError:
        return BasePin(reference, rootfs=local.rootfs)
    return BasePin(reference, digest=asked if fresh or asked != known else known)


def resolve_base(pin: BasePin, *, engine: Engine, reporter: Reporter, platform: str = "linux-64") -> ImageInfo:
    """Return the pinned image from the daemon, pulled when it is missing.

    :param platform: the Conda platform of the environment, which the image has to fit.
    :raises BuildError: it cannot be had, is another one than the pinned one, or is for another kind of machine.
    """
    found = _by_digest(pin, engine, reporter) if pin.digest else _by_layers(pin, engine)
    expected = IMAGE_ARCHITECTURES.get(platform, "")
    if expected and found.architecture != expected:
        raise BuildError(
            f"the base image is for {found.architecture}, the environment for {platform} ({expected})",
            where=pin.reference,
            hint="Choose a base image for this platform with --base-image, or the image's platform with --platform.",
        )
    return found


def _asked(reference: str, engine: Engine) -> str:
    try:
        return engine.registry_digest(reference)
    except RegistryError as error:
        raise RegistryError(
            f"the base image is not in the daemon, and {error.what}", where=reference, hint=_WITHOUT_REGISTRY
        ) from error


def _digest_of(image: ImageInfo, repository: str) -> str:
    """Return the digest under which a repository knows an image, or empty."""
    names = (name.rpartition("@") for name in image.repo_digests)
    return next((digest for known, _, digest in names if known == repository), "")


def _by_digest(pin: BasePin, engine: Engine, reporter: Reporter) -> ImageInfo:
    name = parse_reference(pin.reference)
    wanted = name.at(pin.digest)
    found = engine.inspect(wanted)
    if found is not None:
        return found
    try:
        return engine.pull(wanted, reporter)
    except RegistryError as error:
        other = engine.inspect(name.tagged)
        raise BuildError(
            f"the base image that the lock names is not in the daemon and cannot be pulled ({error.what})",
            where=wanted,
            hint=(
                f"The daemon has another image of the name {name.tagged}; 'himl-container base bump' takes that one."
                if other is not None
                else _WITHOUT_REGISTRY
            ),
        ) from error


def _by_layers(pin: BasePin, engine: Engine) -> ImageInfo:
    found = engine.inspect(pin.reference)
    if found is None:
        raise BuildError(
            "the base image is not in the daemon, and the lock names no registry that has it",
            where=pin.reference,
            hint="Bring it with 'himl-container base load FILE', or make it with 'himl-container base create'.",
        )
    if found.rootfs != pin.rootfs:
        raise BuildError(
            f"the base image in the daemon is not the one that the lock names (layers {found.rootfs[:19]}, "
            f"locked {pin.rootfs[:19]})",
            where=pin.reference,
            hint="Load the locked one again, or take the present one with 'himl-container base bump'.",
        )
    return found
