"""ONNX Runtime Web, which runs a network in a browser: two files of its npm package, of one version."""

import importlib.util
import logging
import shutil
import subprocess
import tarfile
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from flowferry.configs.locations import cache_folder
from flowferry.configs.validation import UserError
from flowferry.pipelines.storage.files import write_aside

log = logging.getLogger("flowferry")

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
DIGESTS = {
    SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""SHA-256 of the files that a page needs: for the processor alone, without WebGPU."""


def runtime_files(package: Path | None) -> dict[str, bytes]:
    """Return the files of `DIGESTS` by name.

    package: the unpacked npm package; None: the user's cache, into which npm downloads them once. Raises UserError for
    files of another version, and where npm is missing or fails.
    """
    folder = cache_folder() / PACKAGE if package is None else package / "dist"
    if package is None and not all((folder / name).is_file() for name in DIGESTS):
        download(folder)
    try:
        return {name: checked(folder / name, (folder / name).read_bytes()) for name in DIGESTS}
    except OSError as error:
        got = f"no {error.filename} ({error.strerror})"
        raise UserError(f"--runtime: got {got}, expected that of {PACKAGE}") from error


def checked(path: Path, data: bytes) -> bytes:
    """Return the bytes of a file. Raises UserError unless they are those of this version."""
    if sha256(data).hexdigest() != DIGESTS[path.name]:
        raise UserError(f"--format page: got a {path} of another version, expected that of {PACKAGE}")
    return data


def download(folder: Path) -> None:
    """Have npm download the package, and keep what a page needs in `folder`. Raises UserError where that fails."""
    way_out = f"or --runtime with a folder of {PACKAGE}, unpacked"
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"--format page: got no npm, expected it to download {PACKAGE}, {way_out}")
    log.info("npm downloads %s, once", PACKAGE)
    with TemporaryDirectory() as aside:
        command = [npm, "pack", PACKAGE, "--pack-destination", aside, "--fetch-retries", "1"]
        done = subprocess.run(command, cwd=aside, capture_output=True, text=True)
        (archive, *_) = [*Path(aside).glob("*.tgz"), None]
        if done.returncode or archive is None:
            reasons = [line for line in done.stderr.splitlines() if "error" in line] or ["it said nothing"]
            raise UserError(f"--format page: npm did not download {PACKAGE} ({reasons[-1]}); expected it to, {way_out}")
        with tarfile.open(archive) as package:
            for name in DIGESTS:
                file = package.extractfile(f"package/dist/{name}")
                assert file is not None, "a file, no folder"
                write_aside(folder / name, checked(folder / name, file.read()))


def notices() -> str:
    """Return the licenses of ONNX Runtime and of what it is made of, which its Python package comes with.

    Raises UserError where that is not installed.
    """
    found = importlib.util.find_spec("onnxruntime")
    if found is None or found.origin is None:
        raise UserError("--format page: got no onnxruntime, expected it: pip install 'flowferry[onnx]'")
    files = [Path(found.origin).with_name(name) for name in ("LICENSE", "ThirdPartyNotices.txt")]
    return "\n\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
