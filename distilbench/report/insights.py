"""run_summary.md: what a run says, for people, rendered from its files."""

from __future__ import annotations

from typing import Any

import jinja2

from distilbench import paths
from distilbench.measurements.sweep.show import cell_tables, findings, secondary_tables
from distilbench.report import load, tables
from distilbench.runs.folder import Run

TEMPLATE = """\
# {{ config.study }} on {{ config.parameters.device }}, {{ config.created[:10] }}

{% if summary.note %}**Profile {{ summary.profile }}: {{ summary.note }}.**

{% endif -%}
{{ headline }}

- run `{{ config.run_id }}`, design `{{ config.design_hash }}`
- model: {{ model.name }} ({{ "{:,}".format(model.parameters) }} parameters, source {{ model.source }})
- text: {{ data.name }} ({{ data.rows }} sentences, source {{ data.source }})
- machine: {{ env.cpu.model }}, {{ env.cpu.affinity | length }} usable cores
{%- for gpu in gpus %}, {{ gpu }}{% endfor %}; torch {{ env.packages.torch }}
- code: {{ env.git.sha[:12] if env.git.sha else (env.git.get("reason") or "not under git") }}
{{- ", with uncommitted changes" if env.git.sha and env.git.dirty }}

{{ table }}

{% if findings -%}
## Findings
{% for line in findings %}
- {{ line }}
{%- endfor %}

{% endif -%}
Latency is the median over repetitions of the median synchronised forward of one batch. Samples/s is total sentences
over total time.

## What the run cannot say
{% for line in missing + doubts %}
- {{ line }}
{%- else %}
- no doubts were recorded
{%- endfor %}
"""


def run_summary(run: Run, summary: dict[str, Any]) -> str:
    """Renders run_summary.md (GitHub-flavoured Markdown)."""
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True).from_string(TEMPLATE)
    return template.render(
        config=run.config,
        env=paths.read_json(run.folder / "env.json"),
        data=paths.read_json(run.folder / "data.json"),
        model=paths.read_json(run.folder / "model.json"),
        summary=summary,
        gpus=sorted({record.proof["gpu"] for record in run.repetitions() if "gpu" in record.proof}),
        headline=cell_tables.headline(summary),
        table=tables.markdown(cell_tables.cells(summary)),
        missing=cell_tables.not_measured(summary),
        doubts=cell_tables.doubts(summary)
        + [said for told in (secondary_tables.control, secondary_tables.nodes) if (said := told(summary))],
        findings=findings.sentences(load.table([run])),
    )


def write(run: Run, summary: dict[str, Any]) -> str:
    """Writes run_summary.md into the run and returns its text."""
    text = run_summary(run, summary)
    paths.write_atomic(run.folder / "run_summary.md", text)
    return text
