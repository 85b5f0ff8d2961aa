# shellcheck shell=bash
# Sourced by launch/run_cluster.sh and tests/run.sh: makes sure that .venv in this checkout holds what
# setup.cfg and constraints.txt ask for. Nothing is touched, and nothing is started but one `python
# --version`, where that is already so.
#
# What pip finds is the user's affair: PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS and pip.conf are
# honoured. On Linux the default package index serves torch's CUDA build, several GB larger than the CPU
# build; who has no GPU may point PIP_EXTRA_INDEX_URL at an index with CPU builds before the first use.
#
# Exit codes are those of the command line: 3 where this machine lacks something (python, venv, space).

bootstrap_root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
bootstrap_venv="$bootstrap_root/.venv"
bootstrap_stamp="$bootstrap_venv/decentral.stamp"
bootstrap_making="$bootstrap_venv/decentral.making"
bootstrap_log="$bootstrap_root/.venv.log"
bootstrap_space_mb=3072

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

refuse() {
    say "$*"
    exit 3
}

# version_of PYTHON: prints 3.x.y, or nothing where this is no working python.
version_of() {
    local words
    words=$("$1" --version 2>&1) || return 0
    [[ $words =~ ^Python\ ([0-9]+\.[0-9]+\.[0-9]+) ]] && printf '%s' "${BASH_REMATCH[1]}"
    return 0
}

# new_enough VERSION: true from 3.11 on.
new_enough() {
    local major minor
    IFS=. read -r major minor _ <<<"$1"
    ((major > 3 || (major == 3 && minor >= 11)))
}

has_venv() { "$1" -I -c 'import ensurepip, venv' >/dev/null 2>&1; }

# find_python: sets bootstrap_python and bootstrap_version, or says what is missing and exits with 3.
find_python() {
    local candidate path version too_old='' without_venv=''
    local candidates=(python3.13 python3.12 python3.11 python3)
    [[ -n ${PYTHON:-} ]] && candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        path=$(command -v -- "$candidate") || continue
        version=$(version_of "$path")
        [[ -n $version ]] || continue
        if ! new_enough "$version"; then
            too_old="found $version at $path"
        elif ! has_venv "$path"; then
            without_venv="$path ($version) has no venv with pip; install it (Debian, Ubuntu: apt install python${version%.*}-venv)"
        else
            bootstrap_python=$path bootstrap_version=$version
            return
        fi
    done
    [[ -n $without_venv ]] && refuse "$without_venv or set PYTHON=..."
    [[ -n $too_old ]] && refuse "decentral needs Python 3.11 or newer; $too_old; install it or set PYTHON=..."
    [[ -n ${PYTHON:-} ]] && refuse "PYTHON=$PYTHON is no Python that runs; set PYTHON to a Python 3.11 or newer"
    refuse "decentral needs Python 3.11 or newer; found none in PATH; install it or set PYTHON=..."
}

# check_space: refuses where the disk of .venv cannot hold it.
check_space() {
    local free_kb place=$bootstrap_root
    [[ -d $bootstrap_venv ]] && place=$bootstrap_venv
    free_kb=$(df -Pk -- "$place" | awk 'NR == 2 { print $4 }') || refuse "cannot read the free space of $place with df"
    ((free_kb / 1024 >= bootstrap_space_mb)) && return
    refuse "$bootstrap_venv needs about $((bootstrap_space_mb / 1024)) GB (several more with torch's CUDA build);" \
        "$((free_kb / 1024)) MB are free on its disk; free some space or move the checkout"
}

# wanted_stamp VERSION: what the stamp reads when .venv is as it should be, less the last line (the extra).
# The path stands in it because a virtual environment does not survive being moved.
wanted_stamp() {
    local sums
    sums=$(cd -- "$bootstrap_root" && sha256sum setup.cfg pyproject.toml constraints.txt)
    printf 'python %s\nroot %s\n%s\n' "$1" "$bootstrap_root" "$sums"
}

# is_ready EXTRA: true where .venv is complete and was made for these files, this path and this Python.
is_ready() {
    local version stamp asked
    [[ -r $bootstrap_stamp ]] || return 1
    version=$(version_of "$bootstrap_venv/bin/python")
    [[ -n $version ]] || return 1
    if [[ -n ${PYTHON:-} ]]; then
        asked=$(version_of "$PYTHON")
        [[ $asked == "$version" ]] || return 1
    fi
    stamp=$(<"$bootstrap_stamp")
    [[ ${stamp%$'\n'*} == "$(wanted_stamp "$version")" ]] || return 1
    [[ -z $1 || ${stamp##*$'\n'} == "extra $1" ]]
}

# same_python: true where .venv was completed in this place by the Python that would make it now.
same_python() {
    local line_python line_root
    [[ -r $bootstrap_stamp ]] || return 1
    { read -r line_python && read -r line_root; } <"$bootstrap_stamp" || return 1
    [[ $line_python == "python $bootstrap_version" && $line_root == "root $bootstrap_root" ]] || return 1
    [[ $(version_of "$bootstrap_venv/bin/python") == "$bootstrap_version" ]]
}

# explain_failure STAGE: says why pip or venv failed and exits.
explain_failure() {
    tail -n 15 -- "$bootstrap_log" >&2
    if grep -qiE 'no space left on device|errno 28|disk quota exceeded' -- "$bootstrap_log"; then
        refuse "$1: the disk is full (log: $bootstrap_log); free space for $bootstrap_venv and for ${TMPDIR:-/tmp}"
    fi
    refuse "$1 failed (log: $bootstrap_log); where the package index cannot be reached, check the network and PIP_INDEX_URL"
}

# make_environment: an empty .venv of bootstrap_python. One that this script neither completed nor began is left alone.
make_environment() {
    if [[ -d $bootstrap_venv && -n $(ls -A -- "$bootstrap_venv") && ! -e $bootstrap_making && ! -e $bootstrap_stamp ]]; then
        refuse "$bootstrap_venv was not made by this script; move it away, then run this again"
    fi
    say "making $bootstrap_venv with Python $bootstrap_version ($bootstrap_python)"
    mkdir -p -- "$bootstrap_venv"
    touch -- "$bootstrap_making"
    find -H "$bootstrap_venv" -mindepth 1 ! -path "$bootstrap_making" -delete
    check_space
    "$bootstrap_python" -I -m venv -- "$bootstrap_venv" >"$bootstrap_log" 2>&1 || explain_failure "making $bootstrap_venv"
}

# install_packages EXTRA: makes or completes .venv. The stamp is taken away first and put back last, so an
# environment whose set-up was killed half way is recognised, and made anew.
install_packages() {
    local extra=$1 target=. started=$SECONDS
    [[ -n $extra ]] && target=".[$extra]"
    find_python
    if same_python; then
        mv -- "$bootstrap_stamp" "$bootstrap_making"
    else
        make_environment
    fi
    say "installing the packages of constraints.txt (minutes the first time; log: $bootstrap_log)"
    # pip keeps the lock's descriptor: should this script be killed alone, the next one waits for its pip.
    (cd -- "$bootstrap_root" && PIP_DISABLE_PIP_VERSION_CHECK=1 "$bootstrap_venv/bin/python" -I -m pip install \
        --quiet --no-input --constraint constraints.txt --editable "$target") >"$bootstrap_log" 2>&1 ||
        explain_failure "installing packages"
    printf '%s\nextra %s\n' "$(wanted_stamp "$bootstrap_version")" "${extra:-none}" >"$bootstrap_making"
    mv -- "$bootstrap_making" "$bootstrap_stamp"
    say "ready after $((SECONDS - started)) s"
}

# ensure_venv [EXTRA]: returns when .venv is ready; safe to call from several processes at once.
ensure_venv() {
    local extra=${1:-} file
    for file in setup.cfg pyproject.toml constraints.txt; do
        [[ -r $bootstrap_root/$file ]] || refuse "$bootstrap_root/$file is missing; this script needs a complete checkout"
    done
    is_ready "$extra" && return
    command -v flock >/dev/null || refuse "the command flock is missing; install it (package util-linux)"
    [[ -w $bootstrap_root ]] || refuse "cannot write in $bootstrap_root; make it writable or use another checkout"
    exec 9>"$bootstrap_root/.venv.lock"
    if ! flock --nonblock 9; then
        say "waiting for another set-up of $bootstrap_venv"
        flock 9
    fi
    is_ready "$extra" || install_packages "$extra"
    exec 9>&-
}
