#!/bin/bash
# Submits the six jobs of a night: {baseline, palu} x {infer_sweep, ppl, lmeval}. Prints the id and the folder of each.
set -euo pipefail
usage="usage: [SBATCH_FLAGS=\"--gres=gpu:1 …\"] slurm/launch_llm_night.sh [--results_root FOLDER] [options of \`python -m distilbench.llm\`]
  --results_root FOLDER  where the folders of all six lie (default: results/llm)
  Other options go to every job, such as: --profile full -p device=cuda -p dtype=bfloat16"
results_root=results/llm options=()
while [ $# -gt 0 ]; do
  case $1 in
    --results_root) [ $# -ge 2 ] || { echo "$1 needs a value"$'\n'"$usage" >&2; exit 2; }; results_root=$2; shift 2 ;;
    -h | --help) echo "$usage"; exit ;;
    *) options+=("$1"); shift ;;
  esac
done
cd "$(dirname "$0")/.."
mkdir -p slurm_logs  # SLURM does not, and drops a job's output without a word
now=$(date -u +%Y%m%dT%H%M%SZ)
for variant in baseline palu; do
  for suite in infer_sweep ppl lmeval; do
    job=$(sbatch --parsable ${SBATCH_FLAGS:-} --job-name="${variant}_$suite" slurm/run_llm.sbatch --variant "$variant" \
      --suite "$suite" --results_root "$results_root" --run_id "${now}_${variant}_$suite" "${options[@]}")
    echo "$job ${variant}_$suite $results_root/${now}_${variant}_$suite"
  done
done
