#!/bin/sh
# The Dockerfile's one way to install: `install [uv pip install's arguments]` into /opt/venv.
# The index settings come from the build's secret, the download cache from outside the image: the
# machine's own where `python3 -m images` mounts it, else the builder's cache mount.
set -eu
if [ -f /run/secrets/index ]; then . /run/secrets/index; fi
export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt UV_CACHE_DIR=/var/cache/uv
if [ -d /mnt/uv-cache ]; then UV_CACHE_DIR=/mnt/uv-cache; fi
export PYC_INVALIDATION_MODE=UNCHECKED_HASH UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_HTTP_TIMEOUT=180
if [ ! -x /opt/venv/bin/python ]; then /uv/bin/uv venv --quiet --python "$(command -v python3)" /opt/venv; fi
exec /uv/bin/uv pip install --python /opt/venv/bin/python --compile-bytecode "$@"
