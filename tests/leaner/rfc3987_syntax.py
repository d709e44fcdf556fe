"""Stands in for a grammar of web addresses, which JupyterLab installs and jsonschema does without.

Nothing here checks such addresses. To compile the grammar takes a second of CPU time in each process that reads a
notebook or draws a chart, and the tests start hundreds of them.
"""

raise ImportError("left out by the tests: see tests/leaner")
