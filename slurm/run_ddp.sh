#!/bin/bash
# Trains on this machine, in one process per GPU; where there is none, in two on the CPU.
set -euo pipefail
usage="usage: slurm/run_ddp.sh [--nproc_per_node N] [options of \`python -m distilbench.training\`]
  --nproc_per_node N      processes (default: one per GPU; without a GPU: 2)
  --max-restarts N        starts after a process was lost, each from the last saved state (default: 2)
  --output FOLDER         of state, steps and results (default: in checkpoints/)
  such as: slurm/run_ddp.sh --nproc_per_node 2 --source embedded --epochs 1"
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l) || gpus=0
processes=$((gpus > 0 ? gpus : 2)) restarts=2 device=() options=()
value() { [ $# -ge 2 ] || { echo "$1 needs a value"$'\n'"$usage" >&2; exit 2; }; echo "$2"; }
while [ $# -gt 0 ]; do
  case $1 in
    --nproc_per_node | --nproc-per-node) processes=$(value "$@"); shift 2 ;;
    --max-restarts) restarts=$(value "$@"); shift 2 ;;
    --device) device=(--device "$(value "$@")"); shift 2 ;;
    -h | --help) echo "$usage"; exit ;;
    *) options+=("$1"); shift ;;
  esac
done
[ ${#device[@]} -gt 0 ] || [ "$gpus" = 0 ] || device=(--device cuda)
cd "$(dirname "$0")/.."
if [ -z "${DISTILBENCH_BIN:-}" ] && [ -f .venv/bin/activate ]; then . .venv/bin/activate; fi
PATH=${DISTILBENCH_BIN:+$DISTILBENCH_BIN:}$PATH
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # the training shares the cores out itself
exec torchrun --standalone --nproc-per-node "$processes" --max-restarts "$restarts" \
  -m distilbench.training "${device[@]}" "${options[@]}"
