"""The saved results of the operator's benchmark, of which a run can replace a part."""

import json

from bench.operator.results import Results
from bench.table import Line

OLD = [
    Line("100 at once", "all ended", [13.0], "s", 1.5, "<= 1.4"),
    Line("1000 at once", "all ended", [150.0], "s", 1.6, "<= 1.6"),
    Line("1000 at once", "a former line", [1.0], "s"),
    Line("soak", "growth", [0.5], "MiB", 0.5, "<= 1"),
]
CURVES = {100: {"operator: ended": [0.0] * 101}}


def saved(results: Results) -> Results:
    return Results.parse(json.loads(json.dumps(results.to_json())))


def test_what_is_saved_is_read_again() -> None:
    results = Results(curves=dict(CURVES))
    results.replace(OLD, 0.5)
    again = saved(results)
    assert again.lines == OLD
    assert again.curves == CURVES
    assert again.to_json() == results.to_json()
    assert {item["load"] for item in again.to_json()["lines"]} == {0.5}


def test_a_section_replaces_its_parts_in_place_and_keeps_the_run_of_the_others() -> None:
    results = Results()
    results.replace(OLD, 0.5)
    results = saved(results)
    results.replace([Line("1000 at once", "all ended", [140.0], "s", 1.5, "<= 1.6")], 0.1)
    found = [(item["part"], item["ratio"], item["load"]) for item in results.to_json()["lines"]]
    assert found == [("100 at once", 1.5, 0.5), ("1000 at once", 1.5, 0.1), ("soak", 0.5, 0.5)]


def test_an_older_file_has_no_load_for_a_line() -> None:
    item = {"part": "soak", "name": "growth", "values": [1.0], "unit": "MiB"}
    item |= {"ratio": None, "target": None, "is_met": None}
    results = Results.parse({"load": 0.4, "lines": [item], "curves": {}})
    assert results.to_json()["lines"] == [item]
