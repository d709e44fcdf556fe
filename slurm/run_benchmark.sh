#!/bin/bash
# A benchmark inside an allocation (salloc, a batch script of your own) or on a workstation.
set -euo pipefail
usage="usage: slurm/run_benchmark.sh [options] [more options of \`distilbench run\`]
  --device DEVICE         cpu, cuda or cuda:N (default: cpu)
  --batch-sizes LIST      such as 1,8,32 (default: as the profile says)
  --optimal               the batch size with the best throughput of an earlier run on the same kind of machine
  --mixed-precision       autocast to bfloat16 (the proof that it was on is in the run)
  --profile PROFILE       ci, smoke or full (default: smoke)
  --output FOLDER         folder of run folders (default: results/)"
device=cpu profile=smoke sizes= options=()
value() { [ $# -ge 2 ] || { echo "$1 needs a value"$'\n'"$usage" >&2; exit 2; }; echo "$2"; }
while [ $# -gt 0 ]; do
  case $1 in
    --device) device=$(value "$@"); shift 2 ;;
    --batch-sizes) sizes=$(value "$@"); shift 2 ;;
    --profile) profile=$(value "$@"); shift 2 ;;
    --output) output=$(value "$@"); options+=(--results-root "$output"); shift 2 ;;
    --mixed-precision) options+=(-p variants autocast); shift ;;
    -h | --help) echo "$usage"; exit ;;
    *) options+=("$1"); shift ;;
  esac
done
cd "$(dirname "$0")/.."
if [ -z "${DISTILBENCH_BIN:-}" ] && [ -f .venv/bin/activate ]; then . .venv/bin/activate; fi
PATH=${DISTILBENCH_BIN:+$DISTILBENCH_BIN:}$PATH
exec distilbench run distilbert --profile "$profile" --device "$device" ${sizes:+--batch-sizes "$sizes"} "${options[@]}"
