"""Ranks find each other on IPv6, and never through a proxy."""

import os
import socket
import subprocess
import sys

import pytest

from finetune_trainer.launcher.rank_processes import environment
from tests.trainer import support

pytestmark = pytest.mark.slow

SUM = """\
from datetime import timedelta

import torch
from torch import distributed

distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
number = torch.tensor([distributed.get_rank() + 1.0])
distributed.all_reduce(number)
print(number.item())
distributed.destroy_process_group()
"""
DEAD_PROXY = "http://127.0.0.1:1"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the machine has no IPv6")
def test_two_nodes_meet_at_an_ipv6_address_whatever_the_proxy() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
        port = free.getsockname()[1]
    task = support.train_task("u", nodes=2, master_host="::1", master_port=port)
    inherited = {name: text for name, text in os.environ.items() if "proxy" not in name.lower()}
    inherited |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), DEAD_PROXY)
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SUM],
            env=environment(task, node, 0, inherited),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for node in range(2)
    ]
    try:
        said = [rank.communicate(timeout=200) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [out.strip() for out, _ in said] == ["3.0", "3.0"], said
