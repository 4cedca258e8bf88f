#!/usr/bin/env bash
# Builds widget and dashboard into app/static, unless their sources are those of the last build. `test` runs their tests too.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
front=app/frontend

install_packages() {
    (cd "$front" && npm ci --no-audit --no-fund --loglevel=error)
}

build() {
    (cd "$front" && npm run --silent build)
}

run_tests() {
    (cd "$front" && npm test --silent)
}

locked=$(fingerprint "$front/package-lock.json" "$front/package.json")
sources=$(cd "$front" && find . -path ./node_modules -prune -o -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-32)
installed="$front/node_modules/.installed-$locked"
built="app/static/.built-$sources"
if [[ -e $built && ${1:-} != test ]]; then
    exit 0
fi
use_node || fail "Node could not be installed: see pip's words above, or install Node 20.19 or newer yourself."
if [[ ! -e $installed ]]; then
    step "Front end: packages (node $(node --version))" install_packages
    touch "$installed"
fi
if [[ ! -e $built ]]; then
    rm -f app/static/.built-*
    step "Front end: build" build
    mkdir -p app/static
    touch "$built"
fi
if [[ ${1:-} == test ]]; then
    step "Front end: tests" run_tests
fi
