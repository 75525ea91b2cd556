#!/bin/sh
# Writes both lock files from pyproject.toml: versions and hashes, no address. Needs uv.
set -eu
cd "$(dirname "$0")/.."
lock() {
    out=$1
    shift
    uv pip compile pyproject.toml "$@" --quiet --generate-hashes --no-emit-index-url --no-annotate \
        --no-header --python-version 3.11 --universal --output-file "$out"
}
lock requirements.lock --extra build "$@"
lock requirements-dev.lock --extra build --extra dev "$@"
