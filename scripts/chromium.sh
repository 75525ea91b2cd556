# To be read by other scripts (`. scripts/chromium.sh`): $chromium is what packages.sh is to install for tests and pictures,
# and `bring_chromium` brings what is missing then, once .venv is there.
# Debian's Chromium without a user interface does the same for less than half of the processor time.
shell=/usr/lib/chromium/chromium-headless-shell
chromium="/usr/bin/chromium*=chromium-headless-shell"
# What Ubuntu calls chromium is a snap, which cannot be driven; there Playwright brings a browser of its own.
case $(cat /etc/os-release 2>/dev/null) in *"
ID=ubuntu
"*)
    shell=
    [ -e /usr/bin/chromium ] || chromium=
    ;;
esac

bring_chromium() {
    if [ -z "$chromium" ]; then
        .venv/bin/playwright install --with-deps chromium
    elif [ -n "$shell" ]; then
        sh scripts/packages.sh "$shell=chromium-headless-shell" || echo "The Chromium that is there will do, more slowly."
    fi
}
