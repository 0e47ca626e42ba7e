#!/usr/bin/env bash
# Set up what the demo and the tests need. Says what it does; does nothing that is done already.
#
#   scripts/setup.sh            a virtual environment (.venv), a Docker engine that answers, and tools of the offline kit
#   scripts/setup.sh --no-docker   the virtual environment only
#   scripts/setup.sh --torch       PyTorch and Lightning too, which the tests of himl_container.training need (1 GB)
#
# On Debian (and its relatives) as root, missing system packages are installed with apt. Anywhere else nothing of the
# system is touched: what is missing is named, with the way to get it, and the exit code is 1.
# PYTHON=/path/to/python3 chooses the interpreter; else the first of 3.10 to 3.12 that is found is taken.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

with_docker=1
with_torch=0
for word in "$@"; do
    case "$word" in
        --no-docker) with_docker=0 ;;
        --torch) with_torch=1 ;;
        *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done

say() { printf 'setup: %s\n' "$*"; }

missing=()  # what cannot be installed from here, one line each
optional=() # the same, of what the demo can do without

is_debian_root() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && grep -qE '^ID(_LIKE)?=.*debian' /etc/os-release 2>/dev/null
}

# apt_install "PACKAGES" "WHY" "HOW ELSE": install, or note what is missing.
apt_updated=0
apt_install() {
    if ! is_debian_root; then
        if command -v apt-get >/dev/null; then
            missing+=("$2: run 'sudo apt-get install $1'")
        else
            missing+=("$2: $3")
        fi
        return 1
    fi
    say "installing $1 with apt ($2)"
    export DEBIAN_FRONTEND=noninteractive
    if [ "$apt_updated" = 0 ]; then
        apt_run apt-get update
        apt_updated=1
    fi
    # shellcheck disable=SC2086  # a list of package names
    apt_run apt-get install --yes --no-install-recommends $1
}

# Quiet unless it fails.
apt_run() {
    if ! "$@" >.kit/apt.log 2>&1 </dev/null; then
        cat .kit/apt.log >&2
        say "'$*' failed" >&2
        exit 1
    fi
}

# --- Python --------------------------------------------------------------------------------------------------------

fits() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' >/dev/null 2>&1; }

find_python() {
    local name
    # 3.11 first: it is what the examples ask for, and an offline Conda channel is made from this interpreter.
    for name in ${PYTHON:+"$PYTHON"} python3.11 python3 python3.12 python3.10 /usr/bin/python3; do
        if fits "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

set_up_python() {
    local python stamp
    if [ -x .venv/bin/python ] && fits .venv/bin/python; then
        stamp=$(venv_stamp)
        if [ "$(cat .venv/setup-stamp 2>/dev/null)" = "$stamp" ]; then
            return
        fi
    else
        if ! python=$(find_python); then
            apt_install "python3" "a Python from 3.10 to 3.12" "install one, or set PYTHON to it" || return 0
            python=$(find_python) || { missing+=("a Python from 3.10 to 3.12: install one, or set PYTHON to it"); return 0; }
        fi
        # Debian keeps venv and pip of its Python in packages of their own.
        if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            apt_install "python3-venv" "the venv module of $python" "install it, or set PYTHON to another Python" || return 0
        fi
        say "making .venv with $("$python" --version) ($python)"
        rm -rf .venv
        "$python" -m venv .venv
        stamp=$(venv_stamp)
    fi
    say "installing himl-container and its development tools into .venv"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --use-pep517 --editable '.[dev]' </dev/null
    # What pip installs it compiles, but for a checkout; and where PYTHONDONTWRITEBYTECODE is set nobody ever would.
    [ ! -d himl_container ] || .venv/bin/python -m compileall -q himl_container
    printf '%s' "$stamp" >.venv/setup-stamp
}

# What decides the content of .venv.
venv_stamp() { .venv/bin/python -c 'import hashlib, sys; print(sys.version, hashlib.sha256(open("pyproject.toml", "rb").read()).hexdigest())'; }

# --- PyTorch -------------------------------------------------------------------------------------------------------

# Lightning is published under two names, and the tests use both. PyPI's PyTorch for Linux brings CUDA; for one without,
# set PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu. By pip, which knows the machine's own indexes.
torch_packages="torch==2.13.0 pytorch-lightning==2.6.* lightning==2.6.*"

set_up_torch() {
    if [ "$(cat .venv/torch-stamp 2>/dev/null)" = "$torch_packages" ]; then
        return
    fi
    say "installing PyTorch and Lightning into .venv"
    # shellcheck disable=SC2086  # a list of requirements
    if ! (set -f; .venv/bin/python -m pip install --quiet --disable-pip-version-check $torch_packages) \
        >.kit/torch.log 2>&1 </dev/null; then
        optional+=("PyTorch and Lightning: 'pip install $torch_packages' failed (.kit/torch.log)")
        return
    fi
    printf '%s' "$torch_packages" >.venv/torch-stamp
}

# --- Docker --------------------------------------------------------------------------------------------------------

# Does the engine that Docker's rules lead to answer?
engine_answers() {
    if command -v docker >/dev/null; then
        # macOS has no 'timeout'.
        $(command -v timeout >/dev/null && echo timeout 10) docker version --format '{{.Server.Version}}' >/dev/null 2>&1
        return
    fi
    .venv/bin/python - <<'PYTHON' >/dev/null 2>&1
import os, socket
host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(10)
    client.connect(host.removeprefix("unix://"))
    client.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
    assert b" 200 " in client.recv(64)
PYTHON
}

set_up_engine() {
    engine_answers && return
    if [ -n "${DOCKER_HOST:-}" ]; then
        missing+=("a Docker engine: none answers at DOCKER_HOST, which is set; start it, or unset the variable")
        return
    fi
    if ! command -v dockerd >/dev/null; then
        apt_install "docker.io iptables" "Docker Engine" "install Docker Engine or Docker Desktop and start it" || return 0
        engine_answers && return
    fi
    if [ "$(id -u)" != 0 ]; then
        missing+=("a Docker engine: dockerd is here but does not answer to you; start it ('sudo systemctl start docker'), \
and see that you may use its socket (group 'docker')")
        return
    fi
    start_engine
}

start_engine() {
    local pid=""
    if [ -d /run/systemd/system ]; then
        say "starting docker.service"
        systemctl start docker.service || true
    else
        say "starting dockerd (log: .kit/dockerd.log)"
        setsid nohup dockerd >.kit/dockerd.log 2>&1 </dev/null &
        pid=$!
    fi
    for _ in $(seq 120); do
        engine_answers && return
        if [ -n "$pid" ] && ! kill -0 "$pid" 2>/dev/null; then
            break
        fi
        sleep 0.5
    done
    [ -z "$pid" ] || tail -n 20 .kit/dockerd.log >&2
    missing+=("a Docker engine: dockerd did not start; its log says why")
}

# --- Tools of the offline kit --------------------------------------------------------------------------------------

set_up_tools() {
    if ! command -v mmdebstrap >/dev/null; then
        apt_install "mmdebstrap" "makes base images without an image registry" "Debian and its relatives have it" || true
    fi
    if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
        apt_install "chromium chromium-driver" "the browser in which the emulator's page is tested" \
            "Chromium and its chromedriver" || true
    fi
    if ! command -v docker-registry >/dev/null; then
        apt_install "docker-registry" "the image registry of the tests" \
            "the 'registry' program of the CNCF distribution project, under the name docker-registry" || return 0
        # Debian starts it at once, open to the network; the tests start their own on loopback.
        if [ -d /run/systemd/system ]; then
            systemctl disable --now docker-registry.service >/dev/null 2>&1 || true
        fi
    fi
}

# Azurite, the emulator of Azure's blob storage behind the emulator of AzureML.
azurite_version=3.35.0

set_up_azurite() {
    local program=.kit/azurite/node_modules/.bin/azurite-blob
    if [ -x "$program" ] || command -v azurite-blob >/dev/null; then
        return
    fi
    if ! command -v npm >/dev/null; then
        apt_install "nodejs npm" "Azurite, the blob storage of the emulator, needs Node.js" "install Node.js 18 or later" || return 0
    fi
    say "installing Azurite $azurite_version into .kit with npm"
    mkdir -p .kit/azurite
    if ! npm install --prefix .kit/azurite --no-audit --no-fund --loglevel=error "azurite@$azurite_version" \
        >.kit/npm.log 2>&1 </dev/null; then
        missing+=("Azurite, the blob storage of the emulator: 'npm install --prefix .kit/azurite azurite' failed (.kit/npm.log)")
    fi
}

mkdir -p .kit
set_up_python
if [ "$with_torch" = 1 ] && [ "${#missing[@]}" = 0 ]; then
    set_up_torch
fi
if [ "$with_docker" = 1 ] && [ "${#missing[@]}" = 0 ]; then
    set_up_tools
    set_up_azurite
    optional+=(${missing[@]+"${missing[@]}"})
    missing=()
    set_up_engine
fi
if [ "${#optional[@]}" != 0 ]; then
    say "not here, and needed only without internet and by the tests:"
    printf '  - %s\n' "${optional[@]}"
fi
if [ "${#missing[@]}" != 0 ]; then
    say "this is missing and cannot be installed from here:" >&2
    printf '  - %s\n' "${missing[@]}" >&2
    exit 1
fi
