# To be read by other scripts (`. scripts/types.sh`): the check of types runs from here on, beside what they do, and
# `finish STATUS` ends the script with what it said, and with this status, or 1 where only it failed.
types=$(mktemp)
nice .venv/bin/mypy >"$types" 2>&1 &
mypy=$!
trap 'kill "$mypy" 2>/dev/null || true; rm -f "$types"' EXIT
trap 'exit 130' INT TERM

finish() {
    ended=$1
    wait "$mypy" || [ "$ended" -ne 0 ] || ended=1
    cat "$types"
    exit "$ended"
}
