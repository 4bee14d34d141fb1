"""The table of packages in ARCHITECTURE.md lists the packages and what each of them imports."""

import re
import sys

import grimp

from images.context import ROOT
from lint.problem import product_packages


def table() -> dict[str, set[str]]:
    """Package -> imported packages, from the rows of the table."""
    rows = re.findall(
        r"^\| `\w+/` \| `(\w+)` \| [^|]* \| ([^|]*) \|$",
        (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    return {package: set(re.findall(r"`(\w+)`", imports)) for package, imports in rows}


def test_the_table_lists_every_package_and_each_of_its_imports() -> None:
    packages = {path.name for path in product_packages()} | {"devcluster", "images", "lint"}
    graph = grimp.build_graph(
        *packages,
        include_external_packages=True,
        exclude_type_checking_imports=True,
        cache_dir=None,
    )
    imports: dict[str, set[str]] = {package: set() for package in packages}
    for module in graph.modules:
        package = module.partition(".")[0]
        for imported in graph.find_modules_directly_imported_by(module):
            name = imported.partition(".")[0]
            if name != package and name not in sys.stdlib_module_names:
                imports[package].add(name)
    assert table() == imports
