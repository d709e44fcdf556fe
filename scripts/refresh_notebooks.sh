#!/usr/bin/env bash
# Executes the source notebooks in place in the ci profile, then drops what differs between any two executions.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export DISTILBENCH_PROFILE=ci DISTILBENCH_RESULTS="$scratch"
export IPYTHONDIR="$scratch/ipython" JUPYTER_PATH="" JUPYTER_PREFER_ENV_PATH=1 PYTHONSTARTUP=""  # nothing of the user's
distilbench run batches --profile ci >&2  # what 04_batch_anomaly shows: notebooks of other studies measure it
jupyter execute --inplace notebooks/*.ipynb
nbstripout --keep-output --keep-count \
  --extra-keys "metadata.papermill cell.metadata.papermill cell.metadata.execution metadata.language_info.version" \
  notebooks/*.ipynb
