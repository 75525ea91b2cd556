# To be read by other scripts (`. scripts/chromium.sh`): $chromium is what packages.sh is to install for tests and pictures,
# and `bring_chromium` brings what no package has, once .venv is there.
chromium=/usr/bin/chromium=chromium
# What Ubuntu calls chromium is a snap, which cannot be driven; there Playwright brings a browser of its own.
case $(cat /etc/os-release 2>/dev/null) in *"
ID=ubuntu
"*) [ -e /usr/bin/chromium ] || chromium= ;; esac

bring_chromium() {
    [ -n "$chromium" ] || .venv/bin/playwright install --with-deps chromium
}
