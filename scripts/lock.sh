#!/usr/bin/env bash
# Pins what .venv holds: names and versions alone, so that any index serves it.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

{
    echo "# Every package of the environment, exactly. Made by \`make lock\`; installed by scripts/environment.sh."
    "$PY" -m pip list --format=freeze --exclude-editable --exclude pip --exclude setuptools --exclude wheel --exclude retort |
        sed -E 's/^([^=]+)==([^+]+)(\+.*)?$/\1==\2/' | LC_ALL=C sort -f
} >requirements.lock.part
if grep -vE '^(#.*|[A-Za-z0-9._-]+==[0-9A-Za-z.!-]+)$' requirements.lock.part; then
    fail "These lines pin nothing; the lock stays as it was."
fi
mv requirements.lock.part requirements.lock
echo "$(grep -c == requirements.lock) packages pinned in requirements.lock"
