"""Image names: the grammar of the OCI distribution specification, and the base images that AzureML maintains."""

from __future__ import annotations

import re

# Patterns as text, compiled where they are used; most names need the first one only.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
# Docker takes the first part for a host only if it cannot be a folder: a dot, a port, or localhost.
_HOST = rf"(?:(?:{_LABEL}(?:\.{_LABEL})+|localhost)(?::[0-9]{{1,5}})?|(?:{_LABEL}|\[[0-9a-fA-F:]+\]):[0-9]{{1,5}})"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}"
_LONGEST = 255

# CUDA version -> AzureML's image for it (the folders of the release notes in github.com/Azure/AzureML-Containers).
_CUDA_IMAGES = {
    (11, 8): "mcr.microsoft.com/azureml/openmpi4.1.0-cuda11.8-cudnn8-ubuntu22.04",
    (12, 4): "mcr.microsoft.com/azureml/openmpi5.0-cuda12.4-ubuntu22.04",
    (12, 5): "mcr.microsoft.com/azureml/openmpi5.0-cuda12.5-ubuntu22.04",
    (12, 6): "mcr.microsoft.com/azureml/openmpi5.0-cuda12.6-ubuntu24.04",
    (12, 8): "mcr.microsoft.com/azureml/openmpi5.0-cuda12.8-ubuntu24.04",
}


def has_host(text: str) -> bool:
    """Whether an image's name begins with a registry's address."""
    host, slash, _ = text.partition("/")
    return bool(slash) and re.fullmatch(_HOST, host) is not None


def is_repository(text: str) -> bool:
    """Whether the text is a repository name without tag and digest (``himl/train``, ``host:5000/team/train``)."""
    if len(text) > _LONGEST:
        return False
    return re.fullmatch(_PATH, text) is not None or (
        has_host(text) and re.fullmatch(_PATH, text.partition("/")[2]) is not None
    )


def is_reference(text: str) -> bool:
    """Whether the text is ``repository[:tag][@sha256:...]``."""
    name, at, digest = text.partition("@")
    if at and not re.fullmatch(_DIGEST, digest):
        return False
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:  # the colon of a port
        return is_repository(name)
    return is_repository(repository) and re.fullmatch(_TAG, tag) is not None


def repository_for(folder: str) -> str:
    """Return the default repository name for a project's folder: ``himl/`` and the folder's name made valid."""
    import unicodedata

    plain = unicodedata.normalize("NFKD", folder).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", plain)
    return "himl/" + ("-".join(words)[:100].strip("-") or "environment")


def cuda_image(version: str) -> str | None:
    """Return AzureML's base image for a CUDA version, else for the next later one of the same major version.

    CUDA's minor versions are compatible upwards (NVIDIA, "CUDA Compatibility", minor version compatibility): what was
    built for 12.1 runs with the libraries of 12.4. None when there is no such image.
    """
    major, minor = (int(part) for part in version.split(".")[:2])
    later = [key for key in _CUDA_IMAGES if key[0] == major and key[1] >= minor]
    return _CUDA_IMAGES[min(later)] if later else None


def known_cuda() -> str:
    """Return the CUDA versions that have an image, for a message."""
    return ", ".join(f"{major}.{minor}" for major, minor in sorted(_CUDA_IMAGES))
