"""The peak FLOP/s of a GPU by its name, and the FLOPs of a token."""

import pytest

from finetune_data.memory.shape import ModelShape
from finetune_trainer.engine.mfu import flops_per_token, peak_of


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA L4", 121),
        ("NVIDIA L40", 181),
        ("NVIDIA L40S", 362),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", 70),
        ("NVIDIA A30", 165),
        ("NVIDIA A40", 149.7),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("A100-SXM4-40GB", 312),  # drivers before 470
        ("NVIDIA A800-SXM4-80GB", 312),
        ("NVIDIA A800 80GB PCIe", 312),
        ("NVIDIA H20", 148),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA GH200 144G HBM3e", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA B300 SXM6 AC", 2250),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA GeForce RTX 5090", 209.5),
        ("NVIDIA RTX 6000 Ada Generation", 364),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 503.8),
    ],
)
def test_the_peak_is_that_of_the_data_sheet(name: str, teraflops: float) -> None:
    assert peak_of(name) == teraflops * 1e12


@pytest.mark.parametrize(
    "name",
    [
        "Tesla T4",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA H100 80GB HBM3 MIG 3g.40gb",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 5090 Laptop GPU",
        "NVIDIA A1000",
        "NVIDIA A2",
        "Quadro RTX 6000",
        "NVIDIA RTX A6000",
        "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
        "NVIDIA GRID A100-10C",
        "",
    ],
)
def test_another_gpu_has_no_peak(name: str) -> None:
    assert peak_of(name) is None


def test_experts_that_a_token_does_not_use_cost_nothing() -> None:
    dense = ModelShape(3_000, hidden=10, layers=2, vocabulary=50)
    sparse = ModelShape(30_000, hidden=10, layers=2, vocabulary=50, idle=27_000)
    found = [
        flops_per_token(shape, tied=False, attended=5, trains_everything=True)
        for shape in (dense, sparse)
    ]
    assert found == [6 * (3_000 - 500) + 12 * 2 * 10 * 5] * 2
