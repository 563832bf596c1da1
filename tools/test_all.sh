#!/bin/sh
# Run every test, slow ones too, on each supported Python that this machine has; called by
# `make test-all` with PYTHONS (names or paths) and MAKE. Each Python gets a .venv of its own.
# Ends with one line for each: passed, failed or missing. Fails if one failed or none was found.
set -u

# A pyenv shim exists for versions that are not selected too, so running it is the only proof;
# versions that pyenv keeps but has not selected are used as well.
find_python() {
    if "$1" -c '' 2>/dev/null; then
        command -v "$1"
        return
    fi
    for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/"$1"; do
        if "$candidate" -c '' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

summary=""
status=1
failed=0
for name in $PYTHONS; do
    python=$(find_python "$name")
    if [ -z "$python" ]; then
        summary="$summary\n$name: missing"
        continue
    fi
    echo "== $name ($python)"
    if $MAKE test FAST= PYTHON="$python" VENV=".venv-$(basename "$name")"; then
        summary="$summary\n$name: passed"
        status=0
    else
        summary="$summary\n$name: failed"
        failed=1
    fi
done

printf "$summary\n"
[ "$failed" -eq 0 ] && [ "$status" -eq 0 ]
