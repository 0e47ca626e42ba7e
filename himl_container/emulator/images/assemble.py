"""The images of jobs, put together for one emulator."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from himl_container.cache import Cache
from himl_container.emulator.blobs import Blobs
from himl_container.emulator.images.bring import Bringer
from himl_container.emulator.images.build import Builder
from himl_container.emulator.images.inputs import BuildInputs
from himl_container.emulator.images.own_registry import OwnRegistry
from himl_container.emulator.images.ready import Images
from himl_container.emulator.installation import Installation, make_private_folder
from himl_container.emulator.state.environments import Environments
from himl_container.image.engine import Engine, connect
from himl_container.settings import default_cache_dir

BASE_IMAGE = "HIML_CONTAINER_BASE_IMAGE"


def job_images(
    installation: Installation,
    environments: Environments,
    blobs: Blobs,
    registry: str,
    *,
    base_image: str = "",
    environ: Mapping[str, str] = os.environ,
    connect_engine: Callable[[Cache], Engine] = connect,
) -> Images:
    """Return what brings and builds images.

    The cache is the user's own, so that an image that was built or pulled on this machine costs nothing here.

    :param registry: address of the registry behind ``azurecr.io``.
    :param base_image: what stands in for AzureML's own base images; the user's setting for our pipeline where empty.
    """
    replaced_base = base_image or environ.get(BASE_IMAGE, "")
    cache = Cache(Path(environ.get("HIML_CONTAINER_CACHE_DIR", "") or default_cache_dir()))
    own = OwnRegistry(installation.workspace.registry_host, registry, *installation.inner_registry_login)
    bringer = Bringer(own, cache, connect_engine)
    folder = installation.folder / "builds"
    shutil.rmtree(folder, ignore_errors=True)  # what builds of an emulator that was killed have left
    make_private_folder(folder)
    builder = Builder(
        own,
        BuildInputs(blobs),
        bringer,
        cache=cache,
        connect_engine=connect_engine,
        folder=folder,
        environ=environ,
    )
    return Images(environments, bringer, builder, replaced_base=replaced_base)
