#!/usr/bin/env bash
# The main job on real input: environment files and a private wheel become a lock, an image that is tested, and two runs.
# Every command is printed before it is executed; type the same to do it by hand.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
export PATH="$root/.venv/bin:$PATH"

bold="" plain=""
if [ -t 1 ]; then
    bold=$'\033[1m' plain=$'\033[0m'
fi
heading() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
type_() {
    printf '\n%s$ %s%s\n' "$bold" "$*" "$plain"
    "$@"
}

registry="" registry_process="" emulator=""
clean_up() {
    [ -z "$registry_process" ] || kill "$registry_process"
    [ -z "$emulator" ] || himl-container emulator stop --quiet --data-dir "$emulator/data" || true
    rm -rf ${registry:+"$registry"} ${emulator:+"$emulator"}
}
trap clean_up EXIT

heading "What this machine needs: a Conda channel and a base image"
variables=$(python scripts/offline_kit.py)
printf '%s\n' "${variables:-nothing: conda-forge and the default base image are reached}"
eval "$variables"

heading "Example 1: prime numbers. One environment file, nothing else"
type_ cd "$root/examples/1"
type_ cat environment.yml
type_ himl-container lock
type_ himl-container build
type_ himl-container run --local sample.py -n 103

heading "Example 5: a classifier. An environment with packages from PyPI and a private wheel"
type_ cd "$root/examples/5"
type_ cat environment.yml pyproject.toml
type_ python make_wheel.py
type_ himl-container lock
type_ himl-container render --output "$root/build/demo-context"
type_ himl-container build
# --live: the script works on this folder itself, so that the two CSV files stay here for the next run.
type_ himl-container run --local --live inputs.py
type_ himl-container run --local sample.py --kernel rbf --penalty 10

heading "What the run left"
type_ find runs/latest/ -not -path "*/snapshot/*" -type f
type_ cat runs/latest/outputs/measures.json

if command -v docker-registry >/dev/null; then
    heading "A registry on this machine: the image is pushed, looked into, and compared with everything that should be it"
    registry=$(mktemp -d)
    port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    cat >"$registry/config.yml" <<END
version: 0.1
storage: {filesystem: {rootdirectory: $registry/store}}
http: {addr: "127.0.0.1:$port"}
END
    docker-registry serve "$registry/config.yml" >"$registry/log" 2>&1 &
    registry_process=$!
    export HIML_CONTAINER_REGISTRY=127.0.0.1:$port
    type_ himl-container build --push
    time type_ himl-container build --locked --push
    type_ himl-container inspect "$(himl-container build --locked --push --json | python -c 'import json, sys; print(json.loads(sys.stdin.readlines()[-1])["image"])')"
    type_ himl-container verify latest
    unset HIML_CONTAINER_REGISTRY
fi

heading "The same build again: nothing has changed"
time type_ himl-container build

if himl-container emulator status >/dev/null 2>&1; then
    heading "Example 2: submitted to the emulator of AzureML that runs here"
elif { command -v azurite-blob || ls "$root/.kit/azurite/node_modules/.bin/azurite-blob"; } >/dev/null 2>&1 \
    && command -v docker-registry >/dev/null; then
    heading "Example 2: submitted to an emulator of AzureML, started for this demo"
    emulator=$(mktemp -d)
    export HIML_CONTAINER_EMULATOR_DIR=$emulator/data
    type_ himl-container emulator start --detach --port 0
else
    heading "Example 2 is left out: the emulator needs Azurite and docker-registry (scripts/setup.sh says how to get them)"
    exit 0
fi
type_ cd "$root/examples/2"
type_ cat environment.yml sample.py
type_ python "$root/scripts/job_wheel.py" "$root/examples/wheels"
type_ himl-container submit --azureml --emulator --cluster cpu-cluster sample.py -n 103
type_ himl-container logs --emulator --follow
type_ himl-container download --emulator --output results
type_ find results -type f
run=$(cut -d: -f2 most_recent_run.txt)
type_ himl-container verify --emulator "$run"
