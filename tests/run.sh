#!/usr/bin/env bash
# Every check of this repository: ruff, mypy, import-linter, then pytest. Non-zero where any of them fails.
#
#   tests/run.sh [--fast] [pytest arguments ...]
#
# --fast leaves out the tests marked slow. DECENTRAL_DATA names the folder of the data sets; tests that need
# one of them are skipped, with the reason, where it is unset.
set -euo pipefail

# shellcheck source=launch/bootstrap.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../launch/bootstrap.sh"

ensure_venv dev
cd -- "$bootstrap_root"

pytest_arguments=()
for argument in "$@"; do
    if [[ $argument == --fast ]]; then
        pytest_arguments+=(-m "not slow")
    else
        pytest_arguments+=("$argument")
    fi
done

failed=()
check() {
    printf '== %s\n' "$*"
    "$bootstrap_venv/bin/$1" "${@:2}" || failed+=("$*")
}

check ruff check .
check ruff format --check .
check mypy
check lint-imports
((${#failed[@]} == 0)) || printf '== failed: %s\n' "${failed[@]}"

printf '== pytest %s\n' "${pytest_arguments[*]-}"
pytest_code=0
"$bootstrap_venv/bin/python" -m pytest ${pytest_arguments[@]+"${pytest_arguments[@]}"} || pytest_code=$?
((pytest_code == 0)) || exit "$pytest_code"
((${#failed[@]} == 0))
