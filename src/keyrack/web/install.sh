#!/bin/sh
# Makes this machine a host of a Keyrack service: fetches the agent, enrols, starts it. Read it before you run it.
#
#   curl -fsSL URL/agent/install.sh | KEYRACK_AGENT_TOKEN=TOKEN sh -s -- --url URL
#
# The token stands in no program's arguments, which every account could read. Where this machine is a host already, it
# only brings a new agent, and needs no token. It shuts nobody out: the agent first only reports what it finds (--mode
# observe), or enforces once nobody loses a way in by that (--mode auto).
# Run it as root; or as anybody, for an sshd of your own, with --sshd-config and --state-dir.
set -eu

url='' token=${KEYRACK_AGENT_TOKEN:-} mode=observe prefix='' state='' keys='' revoked='' sshd_config='' drop_in=auto only='' python=''
accounts='' started='' plain='' ca='' proxy=${KEYRACK_AGENT_PROXY:-} chain='' replace='' start=yes

usage() {
    cat <<'TEXT'
usage: KEYRACK_AGENT_TOKEN=TOKEN install.sh --url URL [options]
  --mode observe|auto|enforce
                         observe (default): report who gets in, change nothing; enforce: Keyrack's keys alone;
                         auto: observe, and enforce by itself once nobody loses a way in by that
  --token TOKEN          the token, where nobody else can see this command's arguments
  --sshd-config FILE     sshd's settings, where they are not /etc/ssh/sshd_config
  --drop-in FILE|none    the file of settings that the agent gives to sshd; none: it never changes sshd's settings
  --state-dir DIR        the agent's own folder (root: /var/lib/keyrack-agent)
  --keys-dir DIR         the folder of key files (root: /etc/ssh/keyrack/keys)
  --revoked-keys FILE    the file of revoked keys (root: /etc/ssh/keyrack/revoked_keys)
  --prefix DIR           where the agent itself goes (root: /usr/local/lib/keyrack-agent)
  --allow-accounts       let the service create and remove accounts here
  --chain-keys-command   while enforcing, let in those too whom sshd's own AuthorizedKeysCommand names
  --only-accounts A,B    the accounts that the service may speak for; without it, all
  --python FILE          a Python of 3.9 or newer, where it is not found
  --ca-file FILE         certificate authorities to trust for the service, in place of the system's
  --proxy URL|none       the proxy that leads out to the service; without it, what HTTPS_PROXY and NO_PROXY say here.
                         One with a password: in KEYRACK_AGENT_PROXY, as every account can read arguments
  --plain-http           speak http:// over a private network
  --replace              this machine is a host already: make it a new one
  --no-start             do not start the agent
TEXT
}

say() { printf 'keyrack: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# Quoted for a systemd unit: % and $ mean something there.
unit_word() { printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g; s/%/%%/g; s/\$/$$/g')"; }

read_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
            --allow-accounts) accounts=$1; shift; continue ;;
            --chain-keys-command) chain=$1; shift; continue ;;
            --plain-http) plain=$1; shift; continue ;;
            --replace) replace=$1; shift; continue ;;
            --no-start) start=no; shift; continue ;;
            --help | -h) usage; exit 0 ;;
        esac
        [ $# -ge 2 ] || fail "$1 is unknown, or needs a value; --help lists what there is"
        case $1 in
            --url) url=${2%/} ;;
            --token) token=$2 ;;
            --mode) mode=$2 ;;
            --sshd-config) sshd_config=$2 ;;
            --drop-in) drop_in=$2 ;;
            --state-dir) state=$2 ;;
            --keys-dir) keys=$2 ;;
            --revoked-keys) revoked=$2 ;;
            --prefix) prefix=$2 ;;
            --only-accounts) only=$2 ;;
            --python) python=$2 ;;
            --ca-file) ca=$2 ;;
            --proxy) proxy=$2 ;;
            *) fail "$1 is unknown; --help lists what there is" ;;
        esac
        shift 2
    done
    case $proxy in
        '') ;;
        none) unset HTTPS_PROXY https_proxy HTTP_PROXY http_proxy ALL_PROXY all_proxy || : ;;
        *) HTTPS_PROXY=$proxy https_proxy=$proxy http_proxy=$proxy; export HTTPS_PROXY https_proxy http_proxy ;;
    esac
    # Not for what this starts, but for enrolling alone.
    unset KEYRACK_AGENT_TOKEN
    [ -n "$url" ] || { usage >&2; exit 2; }
    # adopt: the word for observe before 0.2, which stands in operators' own scripts.
    case $mode in observe | auto | enforce) ;; adopt) mode=observe ;; *) fail "--mode is observe, auto or enforce" ;; esac
}

choose_places() {
    if [ "$(id -u)" = 0 ]; then
        : "${prefix:=/usr/local/lib/keyrack-agent}" "${state:=/var/lib/keyrack-agent}"
        : "${keys:=/etc/ssh/keyrack/keys}" "${revoked:=/etc/ssh/keyrack/revoked_keys}"
        return
    fi
    [ -n "$sshd_config" ] || fail "run this as root; or give --sshd-config for an sshd of your own"
    : "${state:=$HOME/.local/state/keyrack-agent}"
    : "${prefix:=$state/program}" "${keys:=$state-files/keys}" "${revoked:=$state-files/revoked_keys}"
}

find_python() {
    older=''
    for candidate in ${python:+"$python"} python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 \
        /usr/libexec/platform-python; do
        found=$(command -v "$candidate" 2>/dev/null) || continue
        if "$found" -I -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
            # The real file: a link of a version manager may lead elsewhere without this user's environment.
            python=$("$found" -I -c 'import os, sys; print(os.path.realpath(sys.executable))')
            return
        fi
        version=$("$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        older="${older:+$older, }$found is $version"
    done
    say "the agent needs Python 3.9 or newer, and nothing was changed on this machine"
    if [ -n "$older" ]; then
        fail "too old: $older. Install a newer one beside it (RHEL 8: dnf install python39; Ubuntu 20.04: apt-get install python3.9), or give --python FILE"
    fi
    fail "none was found: apt-get install python3, dnf install python3, or give --python FILE"
}

fetch() {
    if command -v curl >/dev/null 2>&1; then
        curl -fsSL ${ca:+--cacert "$ca"} -o "$2" "$1"
    elif command -v wget >/dev/null 2>&1; then
        wget -q ${ca:+--ca-certificate="$ca"} -O "$2" "$1"
    else
        env ${ca:+SSL_CERT_FILE="$ca"} "$python" -I -c 'import sys, urllib.request; urllib.request.urlretrieve(sys.argv[1], sys.argv[2])' "$1" "$2"
    fi
}

install_program() {
    mkdir -p "$prefix"
    chmod 755 "$prefix"
    fetch "$url/agent/keyrack-agent.pyz" "$prefix/keyrack-agent.pyz.new" ||
        fail "the agent could not be fetched from $url/agent/keyrack-agent.pyz"
    "$python" -I "$prefix/keyrack-agent.pyz.new" --version >/dev/null ||
        fail "what came from $url/agent/keyrack-agent.pyz is not the agent; is $url a Keyrack service?"
    compile_program
    chmod 755 "$prefix/keyrack-agent.pyz.new"
    mv -f "$prefix/keyrack-agent.pyz.new" "$prefix/keyrack-agent.pyz"
}

# Compiled by the Python that is here, beside the sources, it starts in a third of the time, at boot too. Another Python
# passes over that and takes the sources. Where it cannot be done, as a disk is full, the agent is as it came.
compile_program() {
    if "$python" -I -c 'import importlib.util, marshal, sys, zipfile
came, compiled, name = sys.argv[1:]
with open(came, "rb") as file:
    data = file.read()
with open(compiled, "wb") as file:
    file.write(data)
with zipfile.ZipFile(compiled, "a", zipfile.ZIP_DEFLATED) as pack:
    for entry in pack.namelist():
        if entry.endswith(".py") and entry != "__main__.py":
            source = pack.read(entry)
            code = compile(source, name + "/" + entry, "exec", dont_inherit=True)
            # "Unchecked": nobody changes one without the other (PEP 552).
            head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(source)
            pack.writestr(entry + "c", head + marshal.dumps(code))' \
        "$prefix/keyrack-agent.pyz.new" "$prefix/keyrack-agent.pyz.compiled" "$prefix/keyrack-agent.pyz" 2>/dev/null &&
        "$python" -I "$prefix/keyrack-agent.pyz.compiled" --version >/dev/null 2>&1; then
        mv -f "$prefix/keyrack-agent.pyz.compiled" "$prefix/keyrack-agent.pyz.new"
    else
        rm -f "$prefix/keyrack-agent.pyz.compiled"
    fi
}

# For people and for what the agent itself tells them to type.
install_command() {
    [ "$prefix" = /usr/local/lib/keyrack-agent ] && [ "$(id -u)" = 0 ] || return 0
    mkdir -p /usr/local/bin
    printf '#!/bin/sh\nexec "%s" -I "%s/keyrack-agent.pyz" "$@"\n' "$python" "$prefix" >/usr/local/bin/keyrack-agent.new
    chmod 755 /usr/local/bin/keyrack-agent.new
    mv -f /usr/local/bin/keyrack-agent.new /usr/local/bin/keyrack-agent
}

# The service that this machine is a host of; nothing before it is one.
enrolled_at() {
    [ -f "$state/enrolment.json" ] || return 0
    "$python" -I -c 'import json, sys; print(json.load(open(sys.argv[1]))["url"].rstrip("/"))' "$state/enrolment.json" \
        2>/dev/null || echo unknown
}

# Whether an agent works with the folder, whatever its version: it holds the lock there.
is_running() {
    [ -f "$state/lock" ] || return 1
    # By flock in older versions, by a record lock in newer ones.
    "$python" -I -c 'import fcntl, sys
file = open(sys.argv[1])
for lock in fcntl.flock, fcntl.lockf:
    try:
        lock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        sys.exit(0)
sys.exit(1)' "$state/lock"
}

# Whoever runs the agent here: its unit, or a plain process.
stop_agent() {
    if has_unit; then systemctl stop keyrack-agent.service; fi
    tries=0
    while is_running; do
        # Only while somebody holds it is the number in it a process of the agent.
        pid=$(cat "$state/lock" 2>/dev/null || true)
        case $pid in '' | *[!0-9]*) ;; *) [ "$tries" -gt 0 ] || kill "$pid" 2>/dev/null || true ;; esac
        tries=$((tries + 1))
        [ "$tries" -le 400 ] || fail "the agent (process ${pid:-not known}) does not stop; stop it, and run this again"
        sleep 0.1
    done
}

by_systemd() { [ "$(id -u)" = 0 ] && [ -d /run/systemd/system ] && [ "$state" = /var/lib/keyrack-agent ]; }
has_unit() { by_systemd && [ -f /etc/systemd/system/keyrack-agent.service ]; }

start_agent() {
    [ "$start" = yes ] || return 0
    if by_systemd; then write_unit; else start_plain; fi
    tries=0
    until is_running; do
        tries=$((tries + 1))
        # Nobody starts a plain process again, so that one that has ended is enough.
        if [ "$tries" -gt 50 ] || { [ -n "$started" ] && ! kill -0 "$started" 2>/dev/null; }; then
            if by_systemd; then journalctl -u keyrack-agent.service -n 5 -o cat >&2 || true
            else tail -n 5 "$state/agent.log" >&2 || true; fi
            fail "the agent was started and does not run; what it said stands above"
        fi
        sleep 0.2
    done
    if by_systemd; then
        say "the agent runs as the service keyrack-agent"
    else
        say "the agent runs; its log is $state/agent.log. There is no systemd here: have it started at boot with"
        say "  $python -I $prefix/keyrack-agent.pyz run --state-dir $state"
    fi
}

enrol() {
    set -- enroll --state-dir "$state" --keys-dir "$keys" --revoked-keys "$revoked" --mode "$mode"
    [ "$drop_in" = none ] || set -- "$@" --drop-in "$drop_in"
    [ -z "$sshd_config" ] || set -- "$@" --sshd-config "$sshd_config"
    [ -z "$ca" ] || set -- "$@" --ca-file "$ca"
    [ -z "$chain" ] || set -- "$@" "$chain"
    [ -z "$only" ] || set -- "$@" --only-accounts "$only"
    # The token and a proxy's password go by the environment: arguments can be read by every account.
    # shellcheck disable=SC2086 - each is one word or none
    words=$(KEYRACK_AGENT_URL=$url KEYRACK_AGENT_TOKEN=$token KEYRACK_AGENT_PROXY=$proxy \
        "$python" -I "$prefix/keyrack-agent.pyz" "$@" $accounts $plain $replace) || exit 1
    # What is next is done here.
    printf '%s\n' "$words" | grep -v '^Next: ' || true
}

write_unit() {
    cat > /etc/systemd/system/keyrack-agent.service <<TEXT
[Unit]
Description=Keeps this host's SSH keys as a Keyrack service says
# Not after network-online.target, for which sshd would wait too, and for long where a network is away.
After=network.target nss-lookup.target
# Only the order: whatever becomes of the agent, sshd starts. Not before ssh.socket, which is there before any service.
# Where that has a unit for each connection, they wait for the slice that all of them are in.
Before=ssh.service sshd.service system-ssh.slice system-sshd.slice

[Service]
# A host that was off obeys what changed meanwhile before its sshd takes anybody.
ExecStartPre=-$(unit_word "$python") -I $(unit_word "$prefix/keyrack-agent.pyz") catch-up --state-dir $(unit_word "$state")
TimeoutStartSec=75
ExecStart=$(unit_word "$python") -I $(unit_word "$prefix/keyrack-agent.pyz") run --state-dir $(unit_word "$state")
Restart=always
RestartSec=2
MemoryMax=128M
# What reads an account's files, in a process of its own, may be killed for them; the agent goes on.
OOMPolicy=continue
UMask=0022

[Install]
WantedBy=multi-user.target
TEXT
    systemctl daemon-reload
    systemctl enable --quiet keyrack-agent.service
    systemctl restart keyrack-agent.service
}

start_plain() {
    setsid=$(command -v setsid || true)
    # shellcheck disable=SC2086 - setsid may be missing
    nohup $setsid "$python" -I "$prefix/keyrack-agent.pyz" run --state-dir "$state" \
        >>"$state/agent.log" 2>&1 </dev/null &
    started=$!
}

read_arguments "$@"
choose_places
find_python
known=$(enrolled_at)
[ -n "$token" ] || { [ -n "$known" ] && [ -z "$replace" ]; } || { usage >&2; exit 2; }
if [ -n "$known" ] && [ -z "$replace" ] && [ "$known" != "$url" ]; then
    fail "this machine is a host of $known already; give --replace to make it one of $url"
fi
install_program
install_command
if [ -n "$known" ] && [ -z "$replace" ]; then
    stop_agent
    start_agent
    version=$("$python" -I "$prefix/keyrack-agent.pyz" --version)
    say "this machine is a host of $url already: it has the agent of now ($version), and the token was not used"
    say "to make it a new host: --replace"
else
    [ -z "$known" ] || stop_agent
    enrol
    start_agent
fi
if [ -x /usr/local/bin/keyrack-agent ] && [ "$prefix" = /usr/local/lib/keyrack-agent ] &&
    [ "$state" = /var/lib/keyrack-agent ]; then
    say "see how it fares:  keyrack-agent status"
else
    say "see how it fares:  $python -I $prefix/keyrack-agent.pyz status --state-dir $state"
fi
