# The image of the tool itself: for CI, and for hosts that cannot lay out a Linux environment (macOS, Windows).
# 'make tool-image' builds it. By hand:
#
#   pip wheel --wheel-dir build/wheelhouse .        (with the Python version that BASE has)
#   docker build --build-arg BASE=python:3.11-slim --tag himl-container .
#
# The wheels are fetched outside, with the credentials and certificates of the machine that builds: nothing of them can
# get into the image. BASE is any Debian-like image; one without Python gets the distribution's.
#
# The container works through the daemon's socket, so folders have to have the same path inside and outside:
#
#   docker run --rm -v /var/run/docker.sock:/var/run/docker.sock -v "$PWD:$PWD" -w "$PWD" himl-container build
ARG BASE=python:3.11-slim
FROM ${BASE} AS python

# The venv of a python3 that has no ensurepip (Debian's) needs python3-venv.
RUN python3 -c 'import ensurepip, venv' 2>/dev/null \
    || { apt-get update \
        && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
        && rm -rf /var/lib/apt/lists/*; }

FROM python AS build
COPY build/wheelhouse/ /tmp/wheelhouse/
RUN python3 -m venv /opt/himl-container \
    && /opt/himl-container/bin/python -m pip install --no-index --no-cache-dir --disable-pip-version-check \
        --find-links /tmp/wheelhouse himl-container

FROM python
COPY --from=build /opt/himl-container /opt/himl-container
ENV PATH=/opt/himl-container/bin:$PATH

# A volume for this folder keeps layers and downloads from one container to the next.
ENV HIML_CONTAINER_CACHE_DIR=/var/cache/himl-container
RUN mkdir -p /var/cache/himl-container && chmod 1777 /var/cache/himl-container

WORKDIR /work
ENTRYPOINT ["himl-container"]
CMD ["--help"]
