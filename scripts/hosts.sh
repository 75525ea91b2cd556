#!/bin/sh
# Makes small Debian systems for the tests, each with systemd, OpenSSH and Python of its release; kept for the next time.
# Arguments: names of releases. As root only, and where debootstrap can; what cannot be made is said and left out, and
# the tests that need it are skipped.
set -eu
PATH=$PATH:/usr/sbin:/sbin
[ "$(id -u)" = 0 ] || exit 0
folder=/var/cache/keyrack-tests/hosts
packages=systemd,systemd-sysv,dbus,libpam-systemd,openssh-server,python3,curl,ca-certificates,procps
mkdir -p "$folder"
for release in "$@"; do
    [ -d "$folder/$release" ] && continue
    echo "Making a small Debian $release for the tests …"
    rm -rf "$folder/.$release"
    if debootstrap --variant=minbase --include="$packages" "$release" "$folder/.$release" >"$folder/$release.log" 2>&1; then
        rm -rf "$folder/.$release/var/cache/apt" "$folder/.$release/var/lib/apt/lists"
        mv "$folder/.$release" "$folder/$release"
    else
        echo "Debian $release could not be made ($folder/$release.log); its tests are skipped." >&2
        rm -rf "$folder/.$release"
    fi
done
