#!/usr/bin/env bash
# Build the image of the tool itself from this checkout: scripts/tool_image.sh [TAG]
#
# Without BASE=IMAGE the official Python image of .venv's version is taken where it can be had, else the offline kit's
# Debian, whose own Python is the same as .venv's on Debian 12 (3.11).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tag=${1:-himl-container}
version=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')

if [ -z "${BASE:-}" ]; then
    BASE=python:$version-slim
    if ! docker image inspect "$BASE" >/dev/null 2>&1 && ! timeout 120 docker pull --quiet "$BASE" >/dev/null 2>&1; then
        if [ "$version" != 3.11 ]; then
            echo "$BASE cannot be had, and the kit's Debian has Python 3.11, not $version; name a base with BASE=IMAGE" >&2
            exit 1
        fi
        BASE=$(.venv/bin/python -c 'import sys; sys.path.insert(0, "scripts"); import offline_kit; print(offline_kit.kit_base_image())')
    fi
fi

rm -rf build/wheelhouse
.venv/bin/python -m pip wheel --quiet --disable-pip-version-check --wheel-dir build/wheelhouse .

docker build --quiet --build-arg "BASE=$BASE" --tag "$tag" .
