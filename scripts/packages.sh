#!/bin/sh
# Installs Debian packages whose program is missing: arguments PROGRAM=PACKAGE; "=PACKAGE" asks for it always.
# A PROGRAM with a slash is a path, where * may stand for any text.
set -eu
PATH=$PATH:/usr/sbin:/sbin
missing=
for pair in "$@"; do
    program=${pair%%=*}
    package=${pair#*=}
    case $program in
    "") missing="$missing $package" ;;
    */*)
        # shellcheck disable=SC2086
        set -- $program
        [ -e "$1" ] || missing="$missing $package"
        ;;
    *) command -v "$program" >/dev/null 2>&1 || missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0
run=
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null 2>&1; then
        run=sudo
    else
        echo "Something is missing that root alone can install; have this run, then try again:" >&2
        echo "  apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "Please install:$missing (this machine has no apt-get)" >&2
    exit 1
fi
echo "Installing$missing …"
log=$(mktemp)
# Another run of this may be installing too.
in_turn() {
    if command -v flock >/dev/null 2>&1; then flock "$0" "$@"; else "$@"; fi
}
export DEBIAN_FRONTEND=noninteractive
# A package that starts a service of its own must not do so here.
# shellcheck disable=SC2086
if ! { in_turn $run apt-get update && in_turn $run env RUNLEVEL=1 apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -20 "$log" >&2
    rm -f "$log"
    exit 1
fi
rm -f "$log"
