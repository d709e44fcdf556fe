"""run_summary.md: what a run says, for people, rendered from its files."""

from __future__ import annotations

from typing import Any

import jinja2

from distilbench import paths
from distilbench.report import load, tables
from distilbench.runs.folder import Run

TEMPLATE = """\
# {{ config.study }} on {{ config.parameters.device }}, {{ config.created[:10] }}

{% if summary.note %}**Profile {{ summary.profile }}: {{ summary.note }}.** {{ reservation }}

{% endif -%}
{{ headline }}

- run `{{ config.run_id }}`, design `{{ config.design_hash }}`
{% for line in subject -%}
- {{ line }}
{% endfor -%}
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
{{ note }}

## What the run cannot say
{% for line in doubts %}
- {{ line }}
{%- else %}
- no doubts were recorded
{%- endfor %}
"""


def run_summary(run: Run, summary: dict[str, Any]) -> str:
    """Renders run_summary.md (GitHub-flavoured Markdown)."""
    showing = run.kind.showing
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True).from_string(TEMPLATE)
    return template.render(
        config=run.config,
        env=run.env,
        summary=summary,
        gpus=sorted({record.proof["gpu"] for record in run.repetitions() if "gpu" in record.proof}),
        subject=showing.subject(run),
        headline=showing.headline(summary),
        reservation=showing.reservation(summary),
        table=tables.markdown(showing.cells(run, summary)),
        doubts=showing.doubts(summary),
        findings=showing.sentences(load.table([run])),
        note=showing.NOTE,
    )


def write(run: Run, summary: dict[str, Any]) -> str:
    """Writes run_summary.md into the run and returns its text."""
    text = run_summary(run, summary)
    paths.write_atomic(run.folder / "run_summary.md", text)
    return text
