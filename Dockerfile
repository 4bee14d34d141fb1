# syntax=docker/dockerfile:1
# The project's four images, one target each: operator, gateway, prepare, trainer.
#
#   docker build --target trainer -t finetune-trainer .       with docker or podman
#   python3 -m images build                                   with buildah, without a container engine
#
# The dependencies come first, in layers that depend on the lists that `images/requirements.py`
# computes from pyproject.toml and constraints.txt. The sources are the last layer, so a code change
# rebuilds, pushes, and pulls only that layer. BASE is any Debian with Python 3.11 or later. Any uid
# works: no image has an entry for its user in /etc/passwd, and LOGNAME is set for programs that
# look up the user's name.
#
# The last COPY of a stage, to /app, is the list of the folders in that image; images/context.py
# reads it.
#
# Pass the settings of a private package index as a secret with shell `export` lines
# (`--secret id=index,src=…`): they reach the build's environment and no layer.
ARG BASE=docker.io/library/python:3.12-slim

FROM ${BASE} AS base
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    LANG=C.UTF-8
WORKDIR /app

# uv is mounted in the steps that install packages and is in no image.
FROM base AS uv
ARG UV_VERSION=0.13.8
RUN --mount=type=secret,id=index \
    if [ -f /run/secrets/index ]; then . /run/secrets/index; fi; \
    export PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1; \
    python3 -m venv /uv && /uv/bin/python -m pip install --no-cache-dir --quiet uv==${UV_VERSION}
COPY images/install.sh /uv/bin/install

FROM base AS requirements
COPY pyproject.toml constraints.txt images/requirements.py /source/
RUN python3 /source/requirements.py /source/pyproject.toml /source/constraints.txt /requirements

# --- operator -----------------------------------------------------------------------------------
FROM base AS operator
COPY --from=requirements /requirements/operator.txt /source/constraints.txt /requirements/
RUN --mount=type=bind,from=uv,source=/uv,target=/uv \
    --mount=type=cache,target=/var/cache/uv \
    --mount=type=secret,id=index \
    /uv/bin/install -r /requirements/operator.txt -c /requirements/constraints.txt
USER 65532:65532
ENV LOGNAME=finetune
ENTRYPOINT ["python", "-m", "finetune_operator"]
CMD ["run"]
COPY api web operator /app/

# --- gateway ------------------------------------------------------------------------------------
FROM base AS gateway
COPY --from=requirements /requirements/gateway.txt /source/constraints.txt /requirements/
RUN --mount=type=bind,from=uv,source=/uv,target=/uv \
    --mount=type=cache,target=/var/cache/uv \
    --mount=type=secret,id=index \
    /uv/bin/install -r /requirements/gateway.txt -c /requirements/constraints.txt
USER 65532:65532
ENV LOGNAME=finetune
ENTRYPOINT ["python", "-m", "finetune_gateway"]
CMD ["run"]
COPY api storage web gateway /app/

# --- prepare ------------------------------------------------------------------------------------
FROM base AS prepare
COPY --from=requirements /requirements/prepare.txt /source/constraints.txt /requirements/
RUN --mount=type=bind,from=uv,source=/uv,target=/uv \
    --mount=type=cache,target=/var/cache/uv \
    --mount=type=secret,id=index \
    /uv/bin/install -r /requirements/prepare.txt -c /requirements/constraints.txt
USER 65532:65532
ENV LOGNAME=finetune
ENTRYPOINT ["python", "-m", "finetune_data"]
COPY api storage data /app/

# --- trainer ------------------------------------------------------------------------------------
# torch and its CUDA libraries: 4 GB that change only with torch's version.
FROM base AS torch
RUN apt-get update -qq \
 && apt-get install -qq -y --no-install-recommends libgomp1 >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY --from=requirements /requirements/torch.txt /requirements/
RUN --mount=type=bind,from=uv,source=/uv,target=/uv \
    --mount=type=cache,target=/var/cache/uv \
    --mount=type=secret,id=index \
    /uv/bin/install --no-deps -r /requirements/torch.txt

# DeepSpeed compiles its shm_comm op when a process group starts. That fails with a read-only root
# and without a compiler, so this stage builds a wheel that contains the op. The op runs on any CPU
# of the architecture; it detects AVX2 and AVX-512 at run time.
FROM torch AS deepspeed
RUN apt-get update -qq \
 && apt-get install -qq -y --no-install-recommends g++ >/dev/null \
 && if ! ls "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" >/dev/null 2>&1; \
    then apt-get install -qq -y --no-install-recommends python3-dev >/dev/null; fi
COPY --from=requirements /requirements/wheel-build.txt /requirements/deepspeed.txt /requirements/
RUN --mount=type=bind,from=uv,source=/uv,target=/uv \
    --mount=type=cache,target=/var/cache/uv \
    --mount=type=secret,id=index \
    /uv/bin/install --no-compile-bytecode -r /requirements/wheel-build.txt pip wheel \
 && if [ -f /run/secrets/index ]; then . /run/secrets/index; fi \
 && export PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 \
 && DS_ACCELERATOR=cpu DS_BUILD_SHM_COMM=1 MAX_JOBS=2 python -m pip wheel --no-cache-dir --no-deps \
    --no-build-isolation --wheel-dir /wheels -r /requirements/deepspeed.txt

# A separate stage, because buildah 1.28 cannot mount a stage whose last step is a cached RUN.
FROM base AS wheels
COPY --from=deepspeed /wheels /wheels

FROM torch AS trainer
# NCCL opens libibverbs and libmlx5 at run time, and uses TCP without them. libcuda and libnvidia-ml
# belong to the node's driver, and the container toolkit mounts them. EFA's plugin (aws-ofi-nccl) and
# gdrcopy belong to a runtime's own image.
RUN apt-get update -qq \
 && apt-get install -qq -y --no-install-recommends libibverbs1 ibverbs-providers >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
# The oldest driver for the CUDA of torch; tests compare it with constraints.txt.
LABEL dev.finetune.minimum-driver="580"
COPY --from=requirements /requirements/trainer.txt /requirements/trainer-constraints.txt /requirements/
RUN --mount=type=bind,from=uv,source=/uv,target=/uv \
    --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    --mount=type=cache,target=/var/cache/uv \
    --mount=type=secret,id=index \
    /uv/bin/install -r /requirements/trainer.txt -c /requirements/trainer-constraints.txt /wheels/*.whl \
 && DS_ACCELERATOR=cpu python -c "\
from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder as Builder; \
Builder.jit_load = None; \
print('ahead-of-time:', Builder().load().__file__)"
USER 65532:65532
ENV LOGNAME=finetune
ENTRYPOINT ["python", "-m", "finetune_trainer"]
COPY api storage data trainer web serving /app/
