"""The kernels of notebooks that the chain runs: this very Python, and nothing of anybody's Jupyter or IPython.

A kernel specification of another program would have another Python measure than the one on record, and start-up files
or a configuration of IPython would change what a notebook does.
"""

from __future__ import annotations

from ipykernel.kernelapp import IPKernelApp
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from distilbench import paths


class OwnKernels(AsyncKernelManager):
    """Starts kernels of this Python, whatever kernel specifications are installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """How to start one; without the working directory on its path."""
        command = [*paths.PYTHON, "-m", __name__, "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="distilbench", language="python")


class PlainKernel(IPKernelApp):
    """An IPython kernel that reads no configuration and runs no start-up code."""

    def load_config_file(self, *_: object, **__: object) -> None:
        """Reads none: neither the user's nor the site's."""

    def init_code(self) -> None:
        """Runs none: no start-up file, no $PYTHONSTARTUP."""


if __name__ == "__main__":
    PlainKernel.launch_instance()
