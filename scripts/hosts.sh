#!/bin/sh
# Makes small Debian systems for the tests, each with systemd, OpenSSH and Python of its release; kept for the next time.
# Arguments: names of releases, "fleet": Debian 12 with what docs/running.md installs, and "directory": one with an LDAP
# server and SSSD. As root only, and where debootstrap can; what cannot be made is said and left out, and the tests that
# need it are skipped.
set -eu
PATH=$PATH:/usr/sbin:/sbin
[ "$(id -u)" = 0 ] || exit 0
cd "$(dirname "$0")/.."
folder=/var/cache/keyrack-tests/hosts
packages=systemd,systemd-sysv,dbus,libpam-systemd,openssh-server,openssh-client,python3,curl,ca-certificates,procps
mkdir -p "$folder"
# Held as long as this runs: who needs one of them waits for it no longer (tests/login/debian_host.py).
exec 9>"$folder/.lock"
flock 9

make_release() {
    [ ! -d "$folder/$1" ] || return 0
    echo "Making a small Debian $1 for the tests …"
    rm -rf "$folder/.$1"
    # A release that is newer than this debootstrap is made as unstable is.
    script=/usr/share/debootstrap/scripts/$1
    [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
    # What a newer debootstrap mounts there ends with this name space; otherwise it would be copied, or removed, below.
    if unshare -m --propagation private debootstrap --variant=minbase --include="$packages" \
        "$1" "$folder/.$1" "" "$script" >"$folder/$1.log" 2>&1; then
        rm -rf "$folder/.$1/var/cache/apt" "$folder/.$1/var/lib/apt/lists"
        mv "$folder/.$1" "$folder/$1"
    else
        echo "Debian $1 could not be made ($folder/$1.log); its tests are skipped." >&2
        rm -rf "$folder/.$1"
    fi
}

# The mounts are in a name space of their own and end with it; no package may start its service in there.
INSTALL='set -eu
mount -t proc proc "$1/proc"
cat /etc/resolv.conf >"$1/etc/resolv.conf"
printf "#!/bin/sh\nexit 101\n" >"$1/usr/sbin/policy-rc.d"
chmod 755 "$1/usr/sbin/policy-rc.d"
export DEBIAN_FRONTEND=noninteractive HOME=/root RUNLEVEL=1
chroot "$1" apt-get -q update
chroot "$1" apt-get -q install -y --no-install-recommends $2
'

# Wheels lie in the system because the test that boots it asks no package index; this machine's way to one, and the
# authorities that it trusts, are used here and do not stay.
FLEET="$INSTALL"'for file in /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    [ -f "$file" ] || continue
    [ -e "$1$file" ] || : >"$1$file"
    mount --bind "$file" "$1$file"
    mount -o remount,bind,ro "$1$file"
done
chroot "$1" python3 -m venv /tmp/wheels
chroot "$1" /tmp/wheels/bin/pip --disable-pip-version-check download -q --no-cache-dir --require-hashes \
    -r /opt/wheels/requirements.lock -d /opt/wheels
rm -r "$1/tmp/wheels" "$1/usr/sbin/policy-rc.d"
'

DIRECTORY='chroot "$1" systemctl disable slapd sssd
rm "$1/usr/sbin/policy-rc.d"
'

# Made anew when the page names other packages, or the program needs others; a test must not begin with the old one.
wanted=$(sed -n 's/^apt-get install -y //p' docs/running.md)
made=$folder/fleet/opt/wheels
case " $* " in
*" fleet "*)
    [ "$(cat "$made/packages" 2>/dev/null)" = "$wanted" ] && cmp -s requirements.lock "$made/requirements.lock" ||
        rm -rf "$folder/fleet"
    ;;
esac

make_fleet() {
    [ ! -d "$folder/fleet" ] || return 0
    [ -d "$folder/bookworm" ] || make_release bookworm
    rm -rf "$folder/.fleet"
    [ -d "$folder/bookworm" ] || return 0
    echo "Making a Debian with what docs/running.md installs, for the tests …"
    cp -a "$folder/bookworm" "$folder/.fleet"
    mkdir -p "$folder/.fleet/opt/wheels"
    cp requirements.lock "$folder/.fleet/opt/wheels/"
    printf '%s\n' "$wanted" >"$folder/.fleet/opt/wheels/packages"
    if timeout 900 unshare -m --propagation private sh -c "$FLEET" sh "$folder/.fleet" "$wanted" >"$folder/fleet.log" 2>&1; then
        printf '[global]\nno-index = true\nfind-links = /opt/wheels\n' >"$folder/.fleet/etc/pip.conf"
        rm -rf "$folder/.fleet/var/cache/apt" "$folder/.fleet/var/lib/apt/lists"
        mv "$folder/.fleet" "$folder/fleet"
    else
        echo "That Debian could not be made ($folder/fleet.log); the test of docs/running.md is skipped." >&2
        rm -rf "$folder/.fleet"
    fi
}

# The services of these packages wait for the test to start them: none of them runs at boot.
make_directory() {
    [ ! -d "$folder/directory" ] || return 0
    [ -d "$folder/bookworm" ] || make_release bookworm
    [ -d "$folder/bookworm" ] || return 0
    echo "Making a Debian with an LDAP server and SSSD, for the tests …"
    rm -rf "$folder/.directory"
    cp -a "$folder/bookworm" "$folder/.directory"
    if timeout 900 unshare -m --propagation private sh -c "$INSTALL$DIRECTORY" sh "$folder/.directory" \
        "slapd ldap-utils sssd-ldap libnss-sss libpam-sss git gitolite3" >"$folder/directory.log" 2>&1; then
        rm -rf "$folder/.directory/var/cache/apt" "$folder/.directory/var/lib/apt/lists"
        mv "$folder/.directory" "$folder/directory"
    else
        echo "That Debian could not be made ($folder/directory.log); the test of a directory is skipped." >&2
        rm -rf "$folder/.directory"
    fi
}

for name in "$@"; do
    case $name in
    fleet) make_fleet ;;
    directory) make_directory ;;
    *) make_release "$name" ;;
    esac
done
