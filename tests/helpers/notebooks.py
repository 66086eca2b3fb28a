"""Run the notebooks of docs/notebooks; as a script, store what they print and draw: notebooks.py FILE …"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import nbformat
from nbclient import NotebookClient

ONE_THREAD_OFFLINE = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "FLOWFERRY_DATA": "no data",
    "PYTHONWARNINGS": "ignore:IProgress not found",  # of notebooks without widgets
}


def executed(notebook: Path, folder: Path) -> nbformat.NotebookNode:
    """Run a notebook from its first cell in the empty `folder`; return it with its outputs, each picture as a PNG.

    Raises nbclient's CellExecutionError where a cell fails.
    """
    node = nbformat.read(notebook, as_version=4)
    where = {"IPYTHONDIR": str(folder / ".ipython"), "JUPYTER_RUNTIME_DIR": str(folder / ".jupyter")}
    client = NotebookClient(
        node, timeout=300, record_timing=False, coalesce_streams=True, resources={"metadata": {"path": str(folder)}}
    )
    with patch.dict(os.environ, ONE_THREAD_OFFLINE | where):
        client.execute()
    for cell in node.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/jpeg", None)  # Pillow's images come as both
    return node


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with TemporaryDirectory() as empty:
            nbformat.write(executed(Path(name), Path(empty)), name)
