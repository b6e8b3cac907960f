# Sourced by quickstart.sh and run_tests.sh: leaves an environment active in which mmkernel and EXTRAS are installed.
# A virtual or conda environment that is active is used; otherwise .venv of this checkout, made if need be.
# PYTHON=... chooses the interpreter that makes it.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
extras=${EXTRAS:-}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

find_python() {
    local name
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10 python}; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "No Python 3.10 or newer found (tried: ${PYTHON:-python3, python3.10 ... python3.13, python})." \
        "Install one, or point to it: PYTHON=/path/to/python3 bash $0" >&2
    return 1
}

make_venv() {
    local python old=$root/.venv.old
    python=$(find_python)
    if [ -e "$root/.venv" ]; then
        while [ -e "$old" ]; do old+=_; done
        echo "$root/.venv has no working pip: it stays as $old"
        mv "$root/.venv" "$old"
    fi
    echo "Making the virtual environment $root/.venv with $("$python" --version)"
    if ! "$python" -m venv "$root/.venv" && ! "$python" -m virtualenv --clear "$root/.venv"; then
        rm -rf "$root/.venv"  # half made: the next run must not take it for a whole one
        echo "$python cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2
        return 1
    fi
}

# OpenCV's ordinary wheel needs libGL, glib and xcb of the system; the headless one needs none of them. Both share the
# folder cv2, so the first must go, and the second be laid anew even if pip believes it to be there.
repair_cv2() {
    if python -c 'import cv2' 2>/dev/null; then
        return
    fi
    echo "OpenCV lacks system libraries here: $(python -c 'import cv2' 2>&1 | tail -n 1)"
    echo "Swapping in opencv-python-headless"
    python -m pip uninstall -q -y opencv-python
    python -m pip install -q --no-deps --force-reinstall opencv-python-headless
    python -c 'import cv2'
}

if [ -z "${VIRTUAL_ENV:-}" ] && [ -z "${CONDA_PREFIX:-}" ]; then
    "$root/.venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv
    # shellcheck disable=SC1091
    source "$root/.venv/bin/activate"
elif [ -n "${VIRTUAL_ENV:-}" ]; then
    PATH="$VIRTUAL_ENV/bin:$PATH"  # the variable alone may have been handed down, without the path
fi

# What is installed is named by the checkout and what it asks for; a line per set of extras stands in a file of the environment.
wanted=$(printf '%s\n' "$root" | cat - "$root/setup.cfg" "$root/pyproject.toml" | python -c \
    'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
stamp=$(python -c 'import sys; print(sys.prefix)')/.mmkernel-installed
# with any extras the package itself is there, too
if ! grep -qs "^$wanted ${extras:+$extras\$}" "$stamp" || ! (cd / && python -c 'import mmkernel, cv2') 2>/dev/null; then
    echo "Installing mmkernel${extras:+ with the extra '$extras'} into $(python -c 'import sys; print(sys.prefix)')"
    python -m pip install -e "$root${extras:+[$extras]}"
    repair_cv2
    python -c 'import mmengine'  # yapf, which it imports, writes a cache that two first imports at once find half written
    kept=$(grep -s "^$wanted " "$stamp" || true)  # what another checkout has installed is no longer what is there
    printf '%s\n' ${kept:+"$kept"} "$wanted $extras" >"$stamp"
fi
