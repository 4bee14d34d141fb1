"""The built images run as they do in a pod: a read-only root, no root user, no compiler."""

import json
import mmap
import re
import subprocess
from collections.abc import Iterator

import pytest

from finetune_api.drivers import IMAGE_CUDA, minimum_driver
from finetune_trainer.launcher.rank_processes import ALLOCATOR
from images.__main__ import tags
from images.context import ROOT
from tests.images.mounting import ASSIGNED, Image, buildah, mounted

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

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


@pytest.fixture(params=["operator", "gateway", "prepare", "trainer"])
def image(request: pytest.FixtureRequest) -> Iterator[Image]:
    yield from mounted(request.param)


@pytest.fixture
def trainer() -> Iterator[Image]:
    yield from mounted("trainer")


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


def test_every_user_can_read_every_file_of_the_product(image: Image) -> None:
    """Clusters such as OpenShift assign the user ID, with the group 0."""
    places = ("/app", "/opt/venv")
    found = image.run("find", *places, "!", "-readable", user=ASSIGNED)
    assert found == "", "files that an assigned user ID cannot read"
    folders = image.run("find", *places, "-type", "d", "!", "-executable", user=ASSIGNED)
    assert folders == ""


def test_deepspeed_steps_on_two_ranks_without_a_compiler(trainer: Image) -> None:
    output = trainer.run(
        *("torchrun", "--nproc-per-node", "2", "--master-port", "29555", "/tmp/deepspeed_step.py"),
        user=ASSIGNED,
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
