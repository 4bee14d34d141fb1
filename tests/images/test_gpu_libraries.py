"""What the trainer image has for GPUs, by its Dockerfile."""

import re

from finetune_api.drivers import IMAGE_CUDA, minimum_driver
from images.context import ROOT
from images.requirements import pinned_lines

DOCKERFILE = (ROOT / "Dockerfile").read_text()
TRAINER = DOCKERFILE.split(" AS trainer\n")[1]


def test_the_label_is_the_minimum_driver_of_the_pinned_cuda() -> None:
    pins = pinned_lines((ROOT / "constraints.txt").read_text())
    cuda = pins["nvidia-cuda-runtime"].partition("==")[2]
    assert int(cuda.split(".")[0]) == IMAGE_CUDA
    label = re.search(r'^LABEL dev.finetune.minimum-driver="(.*)"$', TRAINER, re.MULTILINE)
    assert label is not None
    assert label[1] == minimum_driver(cuda)


def test_only_the_trainer_has_the_libraries_of_rdma() -> None:
    installed = re.findall(r"apt-get install (?:-\S+ )*([^>]+) >", TRAINER)
    assert [names.split() for names in installed] == [["libibverbs1", "ibverbs-providers"]]
    assert DOCKERFILE.count("ibverbs-providers") == 1


def test_the_image_requests_no_gpu_by_itself() -> None:
    """NVIDIA_VISIBLE_DEVICES in an image gives a pod GPUs that it did not request."""
    assert "NVIDIA_VISIBLE_DEVICES" not in DOCKERFILE
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in TRAINER
