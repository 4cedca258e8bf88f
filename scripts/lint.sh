#!/usr/bin/env bash
# What review should not have to look for: style, import direction, types.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

types() {
    use_node && "$VENV/bin/pyright" --pythonpath "$PY"
}

step "Style (ruff)" "$VENV/bin/ruff" check .
step "Import direction (import-linter)" "$VENV/bin/lint-imports"
step "Types (pyright)" types
