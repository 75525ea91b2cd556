#!/bin/sh
# Leaves .venv/bin/keyrack; with "dev" also what the tests need. Does nothing when all is in place.
set -eu
cd "$(dirname "$0")/.."
lock=requirements.lock
[ "${1:-}" != dev ] || lock=requirements-dev.lock

python=
for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$name" >/dev/null 2>&1 && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        python=$name
        break
    fi
done
if [ -z "$python" ]; then
    sh scripts/packages.sh python3=python3 || true
    python=python3
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "Keyrack needs Python 3.11 or newer; this machine has none." >&2
        exit 1
    }
fi
if [ ! -x .venv/bin/pip ]; then
    rm -rf .venv
    if ! "$python" -m venv .venv >/dev/null 2>&1; then
        rm -rf .venv
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        sh scripts/packages.sh "=python$version-venv" "=python3-venv"
        "$python" -m venv .venv
    fi
fi
# Who serves may not write here, and would compile anew all that each command loads.
compiled() {
    .venv/bin/python -m compileall -qq src || true
}
wanted=$(cat pyproject.toml "$lock" | cksum)
for done in .venv/installed-requirements-dev.lock ".venv/installed-$lock"; do
    if [ "$done" = ".venv/installed-$lock" ] || [ "$lock" = requirements.lock ]; then
        base=$(cat pyproject.toml "$(basename "$done" | sed 's/^installed-//')" | cksum)
        if [ -f "$done" ] && [ "$(cat "$done")" = "$base" ] && [ -x .venv/bin/keyrack ]; then
            compiled
            exit 0
        fi
    fi
done
echo "Installing what $lock names into .venv …"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
echo "$wanted" >".venv/installed-$lock"
compiled
