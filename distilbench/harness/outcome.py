"""How a worker ends: with its record beside its job, or with the reason why there is none. The parent commits it."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from distilbench import paths
from distilbench.errors import DistilbenchError, ImplausibleError, Stopped, StorageError
from distilbench.machine.environment import now
from distilbench.runs.records import Record

if TYPE_CHECKING:  # a worker starts no processes
    from distilbench.harness.processes import Spec

OUT_OF_MEMORY = ("out of memory", "DefaultCPUAllocator: can't allocate", "CUBLAS_STATUS_ALLOC_FAILED")


class Unavailable(DistilbenchError):
    """What was asked for cannot be measured here."""


def leave_record(job_file: Path, job: Spec, record_of: type[Record], measure: Callable[[Any], dict[str, Any]]) -> int:
    """Measures, and leaves the record beside the job, or why there is none.

    Args:
        job_file: that the parent wrote.
        job: what it says.
        record_of: the model of the record.
        measure: gives the fields of the record that the job does not.

    Returns:
        The exit code: 0 with a record, 3 when the device's memory did not suffice, 1 on other errors.
    """
    started, clock = now(), time.monotonic()
    try:
        fields = {"status": "ok"} | measure(job)
        record = record_of(**job.identity, **fields, started=started, seconds=time.monotonic() - clock)
    except Unavailable as error:
        return _fail(job_file, "unavailable", str(error), 1)
    except ImplausibleError as error:
        return _fail(job_file, "invalid", str(error), 1)
    except ValidationError as error:  # such as a number that is not finite
        problem = error.errors()[0]
        return _fail(job_file, "invalid", f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}", 1)
    except Stopped as error:
        return _fail(job_file, "preempted", str(error), 1)
    except DistilbenchError as error:
        return _fail(job_file, "storage" if isinstance(error, StorageError) else "failed", str(error), 1)
    except Exception as error:
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY):
            return _fail(job_file, "oom", str(error), 3)
        traceback.print_exc()
        return _fail(job_file, "failed", f"{type(error).__name__}: {error}", 1)
    paths.write_atomic(job_file.with_suffix(".record.json"), record.to_line())
    return 0


def _fail(job_file: Path, status: str, error: str, code: int) -> int:
    """Leaves the reason beside the job; where even that cannot be written, says it on stderr."""
    first = (error.splitlines() or ["no message"])[0]
    try:
        paths.write_json(job_file.with_suffix(".failure.json"), {"status": status, "error": first})
    except StorageError:
        print(first, file=sys.stderr)
    return code
