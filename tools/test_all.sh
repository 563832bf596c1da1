#!/bin/sh
# Runs all tests, slow ones too, on each Python of PYTHONS (names or paths); `make test-all` calls it
# with PYTHONS and MAKE, `make test-peers` with another TARGET of make. Each Python gets its own
# virtual environment, .venv-<name>. Ends with one line for each: passed, failed or missing. Fails
# unless all of them passed.
set -u

# A pyenv shim exists for versions that are not selected, too: only running it shows that it works.
# Versions that are installed in pyenv but not selected are used as well.
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
count=0
failed=0
for name in $PYTHONS; do
    count=$((count + 1))
    python=$(find_python "$name")
    if [ -z "$python" ]; then
        summary="$summary\n$name: missing; install it, or leave it out of PYTHONS="
        failed=1
        continue
    fi
    echo "== $name ($python)"
    if $MAKE "${TARGET:-test}" FAST= PYTHON="$python" VENV=".venv-$(basename "$name")"; then
        summary="$summary\n$name: passed"
    else
        summary="$summary\n$name: failed"
        failed=1
    fi
done

if [ "$count" -eq 0 ]; then
    summary="\nPYTHONS names no Python"
    failed=1
fi
# %b expands the \n between the entries; the names are not part of the format.
printf '%b\n' "$summary"
exit "$failed"
