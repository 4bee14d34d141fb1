"""The parts of the GPU program that need no GPU and measure nothing."""

import json
import os
import subprocess
import sys
from importlib.metadata import requires
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench.gpu import __main__ as program
from bench.gpu import limits, parts, profile, requirements, roofline, table, wheels
from bench.gpu.models import TINY
from bench.gpu.results import Measurement, Origin, Results, read
from bench.gpu.roofline import Rates
from finetune_api.tasks import MethodRef

ORIGIN = Origin("NVIDIA H100 80GB HBM3", "2.13.0")
BOUNDS = (0, 5, 12, 40)
PYTHON = sys.executable


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "gpu.json", ORIGIN)


def test_rows_are_appended_one_by_one_and_the_file_is_always_json(results: Results) -> None:
    path = results._path
    results.add("bytes", 1, Measurement("peak", 18.3, "B per parameter", "<= 20"))
    first = read(path)
    results.finish("bytes", 1, "passed", 12.34)
    assert [row["part"] for row in json.loads(path.read_text())["rows"]] == ["bytes"] * 2
    assert read(path)[:1] == first
    assert first[0] | {"time": ""} == {
        "part": "bytes",
        "attempt": 1,
        "card": ORIGIN.card,
        "torch": ORIGIN.torch,
        "time": "",
        "name": "peak",
        "value": 18.3,
        "unit": "B per parameter",
        "target": "<= 20",
        "is_met": True,
        "details": {},
    }


def test_another_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "trainer.json"
    path.write_text('{"lines": []}')
    with pytest.raises(ValueError, match="not a results file"):
        Results(path, ORIGIN).finish("bytes", 1, "passed", 1)
    assert path.read_text() == '{"lines": []}'


def test_a_resumed_program_repeats_what_failed_and_what_never_ran(results: Results) -> None:
    for part, status in {
        "attention": "passed",
        "parity": "failed",
        "bytes": "missed",
        "trl": "timed out",
        "1b-full": "skipped",
    }.items():
        results.finish(part, 1, status, 1)
    names = ["attention", "parity", "bytes", "1b-full", "8b-lora", "trl"]
    assert results.pending(names) == ["parity", "8b-lora", "trl"]
    results.finish("parity", 2, "passed", 1)
    assert results.pending(names) == ["8b-lora", "trl"]


def test_rows_of_another_card_or_version_do_not_count(results: Results) -> None:
    results.finish("attention", 1, "passed", 1)
    other = Results(results._path, Origin(ORIGIN.card, "2.11.0"))
    assert other.pending(["attention"]) == ["attention"]
    other.finish("attention", 1, "failed", 1)
    assert results.end("attention")["status"] == "passed"


def test_only_the_rows_of_the_last_attempt_count(results: Results) -> None:
    results.add("bytes", 1, Measurement("peak", 22.0))
    results.finish("bytes", 1, "failed", 1)
    results.add("bytes", 2, Measurement("peak", 18.0))
    assert [row["value"] for row in results.last("bytes")] == [18.0]
    assert results.end("bytes") is None
    assert results.pending(["bytes"]) == ["bytes"]


def test_a_broken_value_misses_its_target_and_the_file_stays_json(results: Results) -> None:
    results.add("parity", 1, Measurement("loss", float("nan"), target="<= 0.1"))
    text = results._path.read_text()
    row = json.loads(text, parse_constant=pytest.fail)["rows"][0]
    assert (row["value"], row["is_met"]) == (None, False)
    assert "MISS" in table.figure(row, None)


@pytest.mark.parametrize(
    ("value", "target", "is_met"),
    [
        (0.01, "<= 0.01", True),
        (0.0101, "<= 0.01", False),
        (1.1, ">= 1.1", True),
        (1.0, ">= 1.1", False),
        (float("nan"), "<= 0.01", False),
        (float("nan"), ">= 1", False),
        (5.0, None, True),
    ],
)
def test_a_value_within_its_target_is_met(value: float, target: str | None, is_met: bool) -> None:
    assert Measurement("name", value, target=target).is_met is is_met


def test_a_part_that_ends_without_a_row_gets_one(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process below stands for a crash of CUDA, and the one after it for a hang."""
    options = program.argparse.Namespace(
        output=results._path, trl="python", folder=None, rehearse=True
    )
    for body, seconds, status in (
        ("import os; os.abort()", 60.0, "failed"),
        ("import time; time.sleep(60)", 0.5, "timed out"),
    ):
        monkeypatch.setattr(program.sys, "executable", _interpreter(results, body))
        program.run([parts.find("bytes")], results, options, seconds=seconds)
        end = results.end("bytes")
        assert end is not None
        assert end["status"] == status, end
    assert end["attempt"] == 2


def _interpreter(results: Results, body: str) -> str:
    """A program that runs `body` whatever its arguments are."""
    path = results._path.with_name("python")
    path.write_text(f"#!{PYTHON}\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_processes_in_other_sessions_end_with_their_part() -> None:
    environment = {**os.environ, program.MARK: "mine"}
    mine, other = (
        subprocess.Popen(["sleep", "60"], env=variables, start_new_session=True)
        for variables in (environment, {**environment, program.MARK: "other"})
    )
    try:
        program.end_stragglers("mine")
        assert mine.wait(10) == -9
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_each_part_is_a_process_of_its_own_on_a_gpu() -> None:
    alone = program.processes(parts.PARTS, is_rehearsal=False)
    assert [[part.name for part in group] for group in alone] == [[name] for name in parts.NAMES]
    together = program.processes(parts.PARTS, is_rehearsal=True)
    assert [[part.name for part in group] for group in together] == [list(parts.NAMES)]
    assert parts.NAMES[-1] == "roofline"  # it reads the speeds of the others


def test_each_part_has_a_module_and_fits_the_first_run() -> None:
    folder = Path(parts.__file__).parent
    assert all((folder / f"{part.module}.py").is_file() for part in parts.PARTS)
    assert max(part.seconds for part in parts.PARTS) <= 150


def test_the_table_compares_a_speed_with_its_limit(results: Results) -> None:
    speed = Measurement("2,048-token examples", 30_000.0, "tokens/s")
    results.add("1b-full", 1, speed)
    results.finish("1b-full", 1, "passed", 40)
    details = {"part": "1b-full", "name": speed.name}
    results.add("roofline", 1, Measurement("any", 50_000.0, "tokens/s", details=details))
    lines = list(table.lines(results))
    assert any(
        line.split()[:2] == ["MISS", "1b-full"] and "50,000   0.60  >= 0.7 of the limit" in line
        for line in lines
    ), lines
    assert any(line.strip() == "parity           not run" for line in lines), lines


def test_overlapping_kernels_count_once() -> None:
    assert profile.busy([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 2.0)]) == 4.0


def test_the_measured_ceilings_replace_the_rates_of_an_h100() -> None:
    rows = [{"name": "copy", "value": 4.3}, {"name": "dq, head size 64", "value": 0.003}]
    assert limits.measured_rates(rows) == Rates(memory=4.3e12)


# --- the requirements ----------------------------------------------------------------------------


def test_the_requirements_contain_what_the_libraries_need() -> None:
    """Of the distributions that a machine for training lacks, or that are ours."""
    known = {canonicalize_name(name) for name in requirements.MODULES.values()}
    for name in known - {"torch"}:
        for text in requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                found = canonicalize_name(needed.name)
                assert found in known | OF_HUB, f"{name} needs {found}"


# huggingface_hub's, which every machine with transformers has
OF_HUB = {
    *("filelock", "fsspec", "hf-xet", "httpx", "typer", "typer-slim", "shellingham", "click"),
    *("httpx2", "httpcore2", "requests", "rich"),
}


def test_missing_packages_are_named_together_with_their_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = {"no_such_hjson": "hjson", "no_such_pydantic": "pydantic", "json": "present"}
    monkeypatch.setattr(requirements, "MODULES", absent)
    pins = requirements.pins()
    assert requirements.missing(absent) == [
        f"hjson=={pins['hjson']}",
        f"pydantic=={pins['pydantic']}",
    ]


def test_the_usual_wheels_are_pinned_and_leave_out_torch() -> None:
    names = wheels.usual_names()
    assert all("==" in name for name in names)
    assert {"deepspeed", "hjson", "pydantic", "orjson"} <= {n.partition("==")[0] for n in names}
    assert not any(name.startswith(("torch", "transformers")) for name in names)


# --- the roofline --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def passes() -> dict[str, roofline.Pass]:
    settings: dict[str, dict[str, Any]] = {
        "full": {"method": MethodRef()},
        "checkpointed": {"method": MethodRef(), "checkpointed": TINY["num_hidden_layers"]},
        "one checkpointed": {"method": MethodRef(), "checkpointed": 1},
        "lora": {"method": MethodRef(type="lora", rank=16)},
    }
    return {
        name: roofline.count_pass("8B", BOUNDS, is_tiny=True, **values)
        for name, values in settings.items()
    }


def _flops(one: roofline.Pass, kind: str) -> float:
    return sum(kernel.flops for kernel in one.kernels if kernel.kind == kind)


def _layer_weights() -> int:
    """The numbers in a layer's seven matrices."""
    hidden, inner = TINY["hidden_size"], TINY["intermediate_size"]
    keys = hidden // TINY["num_attention_heads"] * TINY["num_key_value_heads"]
    return 2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * inner


@pytest.mark.slow
def test_products_are_two_forward_and_four_backward_per_weight_and_token(
    passes: dict[str, roofline.Pass],
) -> None:
    """The textbook's 6·N·T, and 8·N·T with activation checkpointing.

    It does not repeat the last product of a layer, whose result no gradient needs.
    """
    layers = TINY["num_hidden_layers"] * _layer_weights()
    head = TINY["vocab_size"] * TINY["hidden_size"]
    tokens = BOUNDS[-1]
    assert _flops(passes["full"], "product") == 6 * tokens * (layers + head)
    again = 2 * _layer_weights() - 2 * TINY["hidden_size"] * TINY["intermediate_size"]
    for name, count in {"one checkpointed": 1, "checkpointed": 2}.items():
        more = _flops(passes[name], "product") - _flops(passes["full"], "product")
        assert more == count * tokens * again


@pytest.mark.slow
def test_only_tokens_with_a_loss_pass_through_the_head(passes: dict[str, roofline.Pass]) -> None:
    one = roofline.count_pass("8B", BOUNDS, method=MethodRef(), targets=10, is_tiny=True)
    spared = BOUNDS[-1] - 10
    head = 6 * spared * TINY["vocab_size"] * TINY["hidden_size"]
    assert _flops(passes["full"], "product") - _flops(one, "product") == head


@pytest.mark.slow
def test_an_adapter_needs_no_gradient_of_frozen_weights(passes: dict[str, roofline.Pass]) -> None:
    found = _flops(passes["lora"], "product")
    layers = TINY["num_hidden_layers"] * _layer_weights()
    head = TINY["vocab_size"] * TINY["hidden_size"]
    adapter = passes["lora"].trained
    tokens = BOUNDS[-1]
    # The first layer's inputs need no gradient, and neither do its adapters'.
    most = tokens * (4 * (layers + head) + 6 * adapter)
    assert 0.85 * most < found <= most


@pytest.mark.slow
def test_attention_counts_pairs_within_examples_only(passes: dict[str, roofline.Pass]) -> None:
    """Two products forward and five backward, each over the causal half of every example."""
    pairs = sum((end - begin) * (end - begin + 1) / 2 for begin, end in pairwise(BOUNDS))
    expected = 7 * 2 * pairs * TINY["hidden_size"] * TINY["num_hidden_layers"]
    assert _flops(passes["full"], "attention") == expected


@pytest.mark.slow
def test_every_group_of_modules_is_found(passes: dict[str, roofline.Pass]) -> None:
    groups = passes["full"].groups(Rates())
    assert {
        *("products", "attention", "head", "norms", "rotary embedding"),
        *("activation function", "additions", "sums of gradients"),
    } <= set(groups)
    assert groups["other"] < 0.2 * sum(groups.values())


def test_a_limit_grows_with_the_rates_and_never_beyond_the_products() -> None:
    one = roofline.Pass(1000, 10, [roofline.Kernel("product", "products", 7e9, 1.0)])
    slow, fast = Rates(products=7e12, launch=0), Rates(products=7e13, launch=0)
    assert roofline.tokens_per_second(one, 4, slow) == pytest.approx(1e6, rel=1e-3)
    assert roofline.tokens_per_second(one, 4, fast) == pytest.approx(1e7, rel=1e-3)
    launches = Rates(products=7e13, launch=1.0)
    assert roofline.tokens_per_second(one, 1, launches) == pytest.approx(1000, rel=1e-3)


@pytest.mark.slow
def test_fused_kernels_are_never_slower_than_the_operations_that_they_replace() -> None:
    """With the real widths, of which one layer is enough."""
    rates = Rates(launch=0)
    shape = roofline.SHAPES["8B"] | {"num_hidden_layers": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(roofline.SHAPES, "8B", shape)
        for layers in (0, 1):
            settings = {"method": MethodRef(), "checkpointed": layers}
            one = roofline.count_pass("8B", (0, 512, 1024), **settings)
            real = roofline.count_pass("8B", (0, 512, 1024), is_fused=True, **settings)
            groups, norms = one.groups(rates), real.groups(rates)["norms"]
            fused = roofline.fused_seconds("8B", one.tokens, rates, is_checkpointed=bool(layers))
            # with the sums of the gradients of two branches, which follow a norm
            assert fused["norms"] < norms < 1.5 * fused["norms"]
            for name, seconds in fused.items():
                assert 0.05 * groups[name] < seconds < 0.8 * groups[name], name
