"""ONNX Runtime Web: the files of one version, from npm or from a folder; all else is refused in a line."""

import hashlib
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from flowferry.configs.validation import UserError
from flowferry.pipelines.publishing import web_runtime

CONTENTS = {web_runtime.SCRIPT: b"export default 1;", web_runtime.WASM: b"\0asm"}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files of a few bytes, and an empty cache."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENTS.items()}
    monkeypatch.setattr(web_runtime, "DIGESTS", digests)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def fake_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Put a program called npm, of this Python code, in front of all others."""
    folder.mkdir()
    program = folder / "npm"
    program.write_text(f"#!{sys.executable}\nimport shutil, sys\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def packed(path: Path) -> Path:
    """Write a package as npm packs it."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in {**CONTENTS, "ort.js": b"more"}.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(data)
            archive.addfile(entry, BytesIO(data))
    return path


def test_npm_downloads_the_package_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = packed(tmp_path / "package.tgz")
    body = f"open({str(tmp_path / 'calls')!r}, 'a').write(' '.join(sys.argv[1:3]) + '\\n')\n"
    body += f"shutil.copy({str(archive)!r}, sys.argv[sys.argv.index('--pack-destination') + 1] + '/package.tgz')"
    fake_npm(tmp_path / "bin", monkeypatch, body)
    assert web_runtime.runtime_files(None) == web_runtime.runtime_files(None) == CONTENTS
    assert (tmp_path / "calls").read_text() == f"pack onnxruntime-web@{web_runtime.VERSION}\n"
    kept = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert kept == set(CONTENTS), "all else is thrown away"


def test_a_folder_is_taken_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    (tmp_path / "dist").mkdir()
    for name, data in CONTENTS.items():
        (tmp_path / "dist" / name).write_bytes(data)
    assert web_runtime.runtime_files(tmp_path) == CONTENTS
    (tmp_path / "dist" / web_runtime.WASM).write_bytes(b"\0asn")
    with pytest.raises(
        UserError, match=r"^--format page: got a .*wasm of another version, expected that of onnx\S+@\S+$"
    ):
        web_runtime.runtime_files(tmp_path)
    with pytest.raises(UserError, match=r"^--runtime: got no .* \(No such file or directory\), expected that of onnx"):
        web_runtime.runtime_files(tmp_path / "nowhere")


def test_without_npm_or_a_network_one_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"^--format page: got no npm, expected it .* or --runtime with a folder of"):
        web_runtime.runtime_files(None)
    fake_npm(tmp_path / "bin", monkeypatch, "sys.exit('npm warn old\\nnpm error network ENOTFOUND\\nnpm notice bye')")
    with pytest.raises(UserError) as failed:
        web_runtime.runtime_files(None)
    assert "(npm error network ENOTFOUND); expected it to, or --runtime with" in str(failed.value)
    assert "\n" not in str(failed.value)


def test_what_npm_gives_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONTENTS, web_runtime.WASM, b"something else")
    archive = packed(tmp_path / "package.tgz")
    destination = "sys.argv[sys.argv.index('--pack-destination') + 1]"
    fake_npm(tmp_path / "bin", monkeypatch, f"shutil.copy({str(archive)!r}, {destination} + '/package.tgz')")
    with pytest.raises(UserError, match="wasm of another version"):
        web_runtime.runtime_files(None)
    assert not [*(tmp_path / "cache").rglob(web_runtime.WASM)]


def test_the_licenses_of_what_a_page_holds_are_found() -> None:
    assert "MIT License" in web_runtime.notices() and "THIRD PARTY" in web_runtime.notices()
