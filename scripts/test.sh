#!/usr/bin/env bash
# Everything that must hold before a change is shared. Arguments go to pytest (make test ARGS="tests/ops -x").
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

step "Environment" scripts/environment.sh
step "Front end" scripts/frontend.sh test
step "Lint" scripts/lint.sh
step "Browser" scripts/browser.sh
step "Tests" "$PY" -m pytest --durations=10 "$@"
echo "==> everything passed in $SECONDS s"
