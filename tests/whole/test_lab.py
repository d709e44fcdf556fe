"""JupyterLab in a real browser: every notebook runs from top to bottom, and its tables and charts are to be seen."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import batch_runs
import nbformat
import pytest
import synthetic
from measuring import stand_in_everywhere
from pages import Complaints, browser, patient
from waiting import Patience, ended, wait_for

from distilbench import paths
from distilbench.machine import environment

NOTEBOOKS = sorted(file.stem for file in (paths.repo_root() / "notebooks").glob("*.ipynb"))
TOKEN = "of-this-test"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_up(url: str, process: subprocess.Popen) -> bool:
    assert process.poll() is None, "JupyterLab ended"
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True


SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # else what is out of sight is not in the page
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},  # asks other hosts
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, captured: dict) -> Iterator[tuple[str, Path]]:
    """JupyterLab on copies of the notebooks, in the ci profile, with finished runs to analyse."""
    folder, port = tmp_path_factory.mktemp("lab"), free_port()
    (folder / "notebooks").mkdir()
    for name in NOTEBOOKS:  # without outputs and counts: what is there afterwards was made there
        notebook = nbformat.read(paths.repo_root() / "notebooks" / f"{name}.ipynb", 4)
        for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
            cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(environment, "capture", lambda: captured)
        synthetic.finished_run(results_root=str(folder / "results"))
        batch_runs.finished_run(results_root=str(folder / "results"))
    for name, content in SETTINGS.items():
        paths.write_json(folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings", content)
    env = (
        os.environ
        | {
            "DISTILBENCH_PROFILE": "ci",
            "DISTILBENCH_RESULTS": str(folder / "results"),
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
            "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        }
        | stand_in_everywhere(folder / "stand-in")
    )  # what is looked at are tables and charts, not numbers
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += [f"--IdentityProvider.token={TOKEN}", "--allow-root", f"--ServerApp.root_dir={folder}"]
    with (folder / "lab.log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: is_up(f"http://127.0.0.1:{port}/api/status?token={TOKEN}", process), "JupyterLab is up")
        yield f"http://127.0.0.1:{port}", folder / "notebooks"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        ended(process)


def kernel_is_ready(page: Any, address: str, name: str) -> bool:
    """Whether it is idle and the page talks to it: before that, Run All asks for a kernel, or is lost."""
    page.wait_for_timeout(300)
    with urllib.request.urlopen(f"{address}/api/sessions?token={TOKEN}", timeout=60) as answer:
        kernels = [one["kernel"] for one in json.load(answer) if one["path"].endswith(f"{name}.ipynb")]
    shown = page.locator(".jp-Toolbar-kernelName").first.inner_text()
    return "Python 3" in shown and any(k and k["execution_state"] == "idle" and k["connections"] for k in kernels)


def run_all(page: Any) -> None:
    """Chooses Run All, again until the first code cell has begun; a question for the kernel is answered as proposed."""
    begun, patience = page.locator(".jp-CodeCell .jp-InputPrompt").first, Patience("something begins to run")
    while True:
        dialog = page.locator(".jp-Dialog .jp-mod-accept")
        if dialog.count():
            dialog.first.click()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.locator("li[data-command='runmenu:run-all']").click()
        page.wait_for_timeout(2000)
        if begun.inner_text().strip("[]: \xa0"):
            return
        patience.spend(0)


def executed_cells(page: Any, notebook: Path) -> list[Any]:
    """Saves; the code cells of the file once all of them have run, before that none."""
    page.keyboard.press("Control+s")
    page.wait_for_timeout(1000)
    code = [cell for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]
    return code if all(cell.execution_count for cell in code) else []


#: The others draw no chart, and nbval executes them (test_notebooks.py).
QUICK = "03_analyse"


@pytest.mark.parametrize("name", [QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in NOTEBOOKS if n != QUICK)])
def test_run_all_works(lab, name):
    address, folder = lab
    with browser() as running:
        page = patient(running.new_page(viewport={"width": 1400, "height": 1000}))
        complaints = Complaints().watch(page)
        page.goto(f"{address}/lab/tree/notebooks/{name}.ipynb?token={TOKEN}&reset")
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        wait_for(lambda: kernel_is_ready(page, address, name), f"the kernel of {name}")
        run_all(page)
        executed = wait_for(lambda: executed_cells(page, folder / f"{name}.ipynb"), "every cell has run")
        assert not [out for cell in executed for out in cell.outputs if out.output_type == "error"]
        assert page.locator(".jp-OutputArea table").count() >= 1
        charts = page.locator(".db-chart svg")
        assert charts.count() == {"03_analyse": 3, "04_batch_anomaly": 1}.get(name, 0)
        for i in range(charts.count()):
            charts.nth(i).scroll_into_view_if_needed()
            assert charts.nth(i).bounding_box()["width"] > 300
        assert complaints == []
