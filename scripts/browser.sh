#!/usr/bin/env bash
# Gets Chromium for the browser tests where this may be done; where it may not, those tests say themselves how to get it.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null && exit 0
done

install_chromium() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >/dev/null && apt-get install -y -q --no-install-recommends chromium fonts-dejavu-core >/dev/null
}

if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    step "Chromium, through apt" install_chromium || echo "retort: Chromium could not be installed; the browser tests cannot run."
else
    echo "retort: no Chromium here; the browser tests are skipped. To have them: apt install chromium"
fi
