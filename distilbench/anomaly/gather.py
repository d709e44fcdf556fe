"""From a run to the file that its report is made of: latencies of the run, operators of the profile within it."""

from __future__ import annotations

from typing import Any

from distilbench import paths
from distilbench.anomaly.records import NAME, BatchProfile, OperatorTime, Profiled, Size, Timed
from distilbench.errors import RunError
from distilbench.report import load
from distilbench.runs.folder import Run
from distilbench.runs.verify import differences

NO_PROFILE = "the run has no profile of its operators"
PACKAGES = ("distilbench", "torch", "transformers", "numpy")


def gather(run: Run) -> BatchProfile:
    """What the report needs of a run that timed each batch size in processes of its own.

    A section whose records have operators profiled the same cells; without one there is no diagnosis.

    Raises:
        RunError: nothing was measured.
    """
    config, params = run.config, run.config["parameters"]
    ((number, where),) = run.kind.comparable.items()
    timed = [record for record in run.measured() if record.pass_ == where]
    if not timed:
        raise RunError(f"run {run.run_id} has no measured repetition: resume it first ({run.resume_command})")
    profile = next((one for one in run.sections if "operators" in one.kind.record.model_fields), None)
    profiled = profile.measured() if profile else []
    states = run.status["cells"]
    cells = [cell for cell in config["cells"] if not cell.get("control_of")]
    model, threads = run.model, {record.num_threads for record in timed}
    return BatchProfile(
        run_id=run.run_id,
        profiling_run_id=profile.run_id if profile and profiled else None,
        study=config["study"],
        profile=params["profile"],
        created=config["created"],
        start="forked" if any(record.start == "forked" for record in timed) else "fresh",
        machine=load.label(run),
        device=params["device"],
        num_threads=threads.pop() if len(threads) == 1 else None,
        model=model["name"],
        model_source=model["source"],
        software=_software(run.env),
        sizes=[_size(cell, timed, number, profiled, states.get(cell["cell"], "pending")) for cell in cells],
    )


def problems(run: Run) -> list[str]:
    """Where the file of a run differs from what the run says now; nothing where it has no such file."""
    file = run.folder / NAME
    if not file.is_file():
        return []
    try:
        return differences(paths.read_json(file), gather(run).model_dump(mode="json"), NAME)
    except RunError as error:
        return [str(error)]


def _software(env: dict[str, Any]) -> dict[str, str]:
    packages, git = env["packages"], env["git"]
    found = {"Python": env["python"]["version"]} | {name: packages[name] for name in PACKAGES if packages.get(name)}
    return found | ({"commit": git["sha"][:12] + ("+" if git["dirty"] else "")} if git["sha"] else {})


def _size(cell: dict[str, Any], timed: list[Any], number: str, profiled: list[Any], state: str) -> Size:
    mine = sorted((one for one in timed if one.cell == cell["cell"]), key=lambda one: one.repetition)
    of_profile = sorted((one for one in profiled if one.cell == cell["cell"]), key=lambda one: one.repetition)
    threads = sorted(one.threads_used for one in mine if one.threads_used is not None)
    return Size(
        **{name: cell[name] for name in ("batch_size", "variant", "dtype", "length_policy")},
        state=state,
        processes=[Timed(repetition=one.repetition, latency_ms=getattr(one, number)) for one in mine],
        threads_used=threads[len(threads) // 2] if threads else None,
        profiled=_profiled(of_profile, cell["device"].startswith("cuda")) if of_profile else None,
        profiled_reason=None if of_profile else NO_PROFILE,
    )


def _profiled(records: list[Any], on_gpu: bool) -> Profiled:
    """Operators by name over processes; one that a process did not call took it no time."""
    field, by_name = "work_ms" if on_gpu else "self_ms", [{one.operator: one for one in r.operators} for r in records]
    found = []
    for name in sorted({name for known in by_name for name in known}):
        ms = [getattr(known[name], field) if name in known else 0.0 for known in by_name]
        first = next(known[name] for known in by_name if name in known)
        parts = first.model_dump(include={"shapes", "kernels"})
        found.append(OperatorTime(operator=name, calls=first.calls, ms=ms, **parts))
    return Profiled(
        repetitions=[one.repetition for one in records],
        forward_ms=[one.forward_ms for one in records],
        profiled_ms=[one.profiled_ms for one in records],
        operators=sorted(found, key=lambda one: -sum(one.ms)),
    )
