"""The built images run as they do in a pod: read-only root, uid 65532, no compiler.

No container engine is needed: buildah mounts the image, `unshare` and `chroot` do the rest.
"""

import json
import mmap
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.drivers import IMAGE_CUDA, minimum_driver
from finetune_trainer.launcher.rank_processes import ALLOCATOR
from images.__main__ import tags
from images.context import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ENVIRONMENT = (
    "PATH=/opt/venv/bin:/usr/bin:/bin",
    "PYTHONPATH=/app",
    "PYTHONDONTWRITEBYTECODE=1",
    "HOME=/tmp",
    "DS_ACCELERATOR=cpu",
)
SCRIPT = """
set -eu
root=$1; shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs tmpfs "$root/tmp"
cp tests/images/deepspeed_step.py "$root/tmp/"
chmod 1777 "$root/tmp" "$root/dev/shm"
mount -o remount,bind,ro "$root"
exec chroot --userspec=65532:65532 --groups= "$root" /usr/bin/env -i "$@"
"""


# The libraries that NCCL opens at run time and the image has; those that the container toolkit
# mounts with the driver; and those that NCCL does without.
NCCL_NEEDS = {"libibverbs.so.1", "libmlx5.so.1"}
OF_THE_DRIVER = {"libcuda.so", "libcuda.so.1", "libnvidia-ml.so.1"}
OPTIONAL = {
    "libgdrapi.so", "libgdrapi.so.2",  # gdrcopy
    "libibverbs.so", "libmlx5.so",  # for developers; NCCL also tries the versioned names
    "libnccl-net.so", "libnccl-gin.so",  # plugins, such as that of EFA
}  # fmt: skip
OF_THE_C_LIBRARY = re.compile(rb"lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+)\.so\.\d+|libnccl\.so\.2")
OPEN_LIBRARIES = "import ctypes, sys; [ctypes.CDLL(name) for name in sys.argv[1:]]; print('opened')"
SHOW_ALLOCATOR = """
from finetune_trainer.launcher.rank_processes import environment
from finetune_api.tasks import TrainTask
import os
task = TrainTask.model_validate_json(os.environ["TASK"])
print(environment(task, 0, 0, dict(os.environ))["PYTORCH_ALLOC_CONF"])
"""


def buildah(*arguments: str) -> str:
    done = subprocess.run(["buildah", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Image:
    """A mounted image."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str) -> str:
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--propagation", "private",
             "sh", "-c", SCRIPT, "sh", self.root, *ENVIRONMENT, *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    def modules(self) -> set[str]:
        (packages,) = self.root.glob("opt/venv/lib/python3*/site-packages")
        return {path.name for path in packages.iterdir()}


@pytest.fixture(params=["operator", "prepare", "trainer"])
def image(request: pytest.FixtureRequest) -> Iterator[Image]:
    yield from mounted(request.param)


@pytest.fixture
def trainer() -> Iterator[Image]:
    yield from mounted("trainer")


def mounted(name: str) -> Iterator[Image]:
    if os.geteuid() != 0 or shutil.which("buildah") is None:
        pytest.skip("mounting an image needs root and buildah")
    reference = f"localhost/{tags()[name]}"
    if subprocess.run(["buildah", "inspect", "--type", "image", reference],
                      capture_output=True, check=False).returncode:  # fmt: skip
        pytest.skip(f"{reference} is not built: python3 -m images build")
    container = buildah("from", reference)
    try:
        yield Image(Path(buildah("mount", container)))
    finally:
        buildah("rm", container)


def test_an_image_holds_no_more_than_it_needs(image: Image, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["image"]
    modules = image.modules()
    assert ("torch" in modules, "deepspeed" in modules) == (name == "trainer",) * 2
    assert ("boto3" in modules) == (name != "operator")
    assert ("kopf" in modules) == (name == "operator")
    assert not {"uv", "pytest", "pip"} & modules
    assert not list(image.root.glob("app/**/*.pyc"))


def test_a_package_runs_without_writing_to_the_root(image: Image) -> None:
    assert "ok" in image.run("python", "-c", "import finetune_api, pydantic; print('ok')")


def test_deepspeed_steps_on_two_ranks_without_a_compiler(trainer: Image) -> None:
    output = trainer.run(
        "torchrun", "--nproc-per-node", "2", "--master-port", "29555", "/tmp/deepspeed_step.py"
    )
    assert "rank 0 stepped" in output
    assert "rank 1 stepped" in output


def test_the_libraries_that_nccl_opens_are_there(trainer: Image) -> None:
    (nccl,) = trainer.root.glob("opt/venv/lib/python3*/site-packages/nvidia/nccl/lib/libnccl.so.2")
    with nccl.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        names = set(re.findall(rb"(?<=\0)lib[a-z0-9_+-]+\.so(?:\.\d+)?(?=\0)", content))
    opened = {name.decode() for name in names if not OF_THE_C_LIBRARY.fullmatch(name)}
    assert opened >= NCCL_NEEDS
    assert opened - OF_THE_DRIVER - OPTIONAL <= NCCL_NEEDS, "a new version of NCCL opens more"
    assert "opened" in trainer.run("python", "-c", OPEN_LIBRARIES, *sorted(NCCL_NEEDS))
    listed = trainer.run("/sbin/ldconfig", "-p")
    assert all(name in listed for name in NCCL_NEEDS)


def test_ranks_on_gpus_have_the_allocator_that_does_not_fragment(trainer: Image) -> None:
    task = (ROOT / "tests/api/golden/train.json").read_text()
    on_gpus = json.dumps(json.loads(task) | {"accelerator": "nvidia"})
    output = trainer.run("env", f"TASK={on_gpus}", "python", "-c", SHOW_ALLOCATOR)
    assert output.strip() == ALLOCATOR


def test_the_trainer_image_names_its_minimum_driver() -> None:
    reference = f"localhost/{tags()['trainer']}"
    try:
        found = json.loads(buildah("inspect", "--type", "image", reference))
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip(f"{reference} is not built: python3 -m images build")
    labels = found["OCIv1"]["config"]["Labels"]
    assert labels["dev.finetune.minimum-driver"] == minimum_driver(IMAGE_CUDA)
