"""Checks that product files and product packages import each other in one direction only.

The graph is the one that import-linter uses (grimp). It includes imports inside functions and
excludes those under `if TYPE_CHECKING`. The layers in pyproject.toml keep the top-level packages
apart; this check looks inside each of them. import-linter's contract `acyclic_siblings` is not
enough: it misses a cycle through an `__init__.py`, and the option that excludes type-checking
imports would apply to every other contract as well.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import grimp

from lint.problem import ROOT, Problem, product_packages


def check_cycles(root: Path = ROOT) -> Iterator[Problem]:
    """Yield the imports that close a cycle between files, then those between packages."""
    packages = product_packages(root)
    sources = [str(package.parent) for package in packages]
    sys.path[:0] = sources
    try:
        graph = grimp.build_graph(
            *(package.name for package in packages),
            exclude_type_checking_imports=True,
            cache_dir=None,
        )
    finally:
        del sys.path[: len(sources)]
    yield from _file_cycles(graph, root)
    for package in packages:
        yield from _package_cycles(graph, package.name, root)


def _file_cycles(graph: grimp.ImportGraph, root: Path) -> Iterator[Problem]:
    """One finding for each import between two files that can reach each other."""
    for importer in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            if graph.find_shortest_chain(imported, importer):
                yield _problem(graph, root, importer, imported, "files")


def _package_cycles(graph: grimp.ImportGraph, package: str, root: Path) -> Iterator[Problem]:
    """The imports to remove so that the children of each package form no cycle."""
    children = graph.find_children(package)
    if len(children) > 1:
        for importer, imported in sorted(graph.nominate_cycle_breakers(package)):
            yield _problem(graph, root, importer, imported, "packages")
    for child in sorted(children):
        yield from _package_cycles(graph, child, root)


def _problem(
    graph: grimp.ImportGraph, root: Path, importer: str, imported: str, between: str
) -> Problem:
    details = graph.get_import_details(importer=importer, imported=imported)
    lines = [item["line_number"] for item in details]
    return Problem(
        module_path(root, importer),
        min(lines, default=1),
        f"import of {imported} closes a cycle between {between}. "
        "Move the shared part to a module that both import.",
    )


def module_path(root: Path, module: str) -> str:
    """The file of a module, relative to the repository."""
    relative = module.replace(".", "/")
    for found in root.glob(f"*/{relative}.py"):
        return found.relative_to(root).as_posix()
    for found in root.glob(f"*/{relative}/__init__.py"):
        return found.relative_to(root).as_posix()
    return relative
