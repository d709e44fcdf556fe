# Sourced by the batch scripts: site, software, caches, threads, and what to do with signals.

cd "${SLURM_SUBMIT_DIR:-.}"  # the script itself runs as a copy elsewhere
if [ -f slurm/site.env ]; then set -a; . slurm/site.env; set +a; fi
set +u  # modules and conda use unset variables
if [ -n "${MODULES:-}" ] && type module >/dev/null 2>&1; then module load $MODULES; fi
if [ -n "${DISTILBENCH_BIN:-}" ]; then  # the environment that `distilbench submit` was called from
  PATH=$DISTILBENCH_BIN:$PATH
elif [ -n "${CONDA_ENV:-}" ]; then
  eval "$(conda shell.bash hook)" && conda activate "$CONDA_ENV"
elif [ -f "${VENV:-.venv}/bin/activate" ]; then
  . "${VENV:-.venv}/bin/activate"
fi
set -u
if ! command -v distilbench >/dev/null; then
  echo "no distilbench in this job: run \`make env EXTRAS=run\` first, or set VENV or CONDA_ENV in slurm/site.env" >&2
  exit 1
fi

export PYTHONUTF8=1  # whatever the locale of a batch job is, names and texts are UTF-8
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}  # jobs use what was fetched before, and fail at once where it is missing
export HF_HOME=${HF_HOME:-$HOME/.cache/huggingface}
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then  # srun takes it over from the allocation only when told, since SLURM 22.05
  export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export IPYTHONDIR=$scratch/ipython JUPYTER_RUNTIME_DIR=$scratch/jupyter  # kernels of several jobs share no files
echo "job ${SLURM_JOB_ID:-none}, start $((${SLURM_RESTART_COUNT:-0} + 1)) on $(hostname), $(date -u +%FT%TZ)"

# watched COMMAND...: USR1 (before the time limit) asks it to stop after the current repetition, TERM ends it at once.
# When it stopped with work left (exit code 75), the job goes back into the queue.
watched() {
  export DISTILBENCH_STOP_FILE=$scratch/stop
  "$@" &
  local child=$! code=0 told=
  trap 'touch "$DISTILBENCH_STOP_FILE"' USR1
  trap 'told=1; kill -TERM $child 2>/dev/null || true' TERM
  while kill -0 $child 2>/dev/null; do wait $child || true; done  # a signal ends the waiting, not the command
  wait $child || code=$?
  if [ $code = 75 ]; then
    echo "stopped before the time limit with work left: back into the queue"
    # An array's last task has the array's own id, by which all tasks would be meant (a running one is then cancelled).
    local me=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID:-}}
    for wait in 5 30 60 0; do  # a controller that is busy answers later
      scontrol requeue "${me:-$SLURM_JOB_ID}" && exit 0
      [ $wait = 0 ] || sleep $wait
    done
    echo "SLURM did not put it back: resume it with \`distilbench submit --resume\` (or sbatch the same again)" >&2
  fi
  # Cancelled, preempted or out of time: SLURM says which, and requeues; to end before it does would be a failure.
  [ -z "$told" ] || sleep 120
  return $code
}
