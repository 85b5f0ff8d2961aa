#!/usr/bin/env bash
# Runs an experiment; sets up .venv in this checkout on first use. Works from any directory.
#
#   launch/run_cluster.sh [EXPERIMENT] [--set key=value ...] [--seeds 1,2,3] [--out DIR]
#                         [--executor processes|inline] [--strict] [--dry-run [--predict]]
#                         [--hosts FILE | --slurm] [--send-data]
#   launch/run_cluster.sh --resume RUN [--hosts FILE | --slurm] [--send-data] [--strict]
#
# EXPERIMENT is a file or the name of one in launch/experiments/; without it the default comparison runs.
# --hosts runs it on the machines of FILE (a name on every line, or TOML), reached by ssh as ~/.ssh/config says;
# --slurm on those of the allocation that this is called in (salloc; for sbatch there is cluster.sbatch). What they
# lack of code and packages is copied there; they need a Python of this one's version, or the package index. The
# data sets are copied only with --send-data. --resume goes on with a run that was ended.
#
# PYTHON names the Python for .venv (3.11 or newer). See bootstrap.sh for what pip installs and from where.
# Exit codes: 0 done, 2 usage or configuration, 3 preflight, 4 a node or host failed, 5 interrupted,
# 6 paced links were not as promised (--strict).
set -euo pipefail

# shellcheck source=launch/bootstrap.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/bootstrap.sh"

ensure_venv

# As with `python -P`: a file of the current directory named like a module must never be imported.
export PYTHONSAFEPATH=1
exec "$bootstrap_venv/bin/decentral" run "$@"
