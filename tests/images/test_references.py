"""References of base images: the registry, the repository, and the tag by the rules of Docker."""

import pytest

from images.references import BaseImageError, Reference, parse_reference, split_digest
from images.registry_client import registry_address
from tests.images.registry_server import EMPTY

HUB = "https://registry-1.docker.io"


@pytest.mark.parametrize(
    ("text", "parts", "address"),
    [
        ("python:3.12-slim", ("docker.io", "library/python", "3.12-slim"), HUB),
        ("docker.io/python:3", ("docker.io", "library/python", "3"), HUB),
        ("docker.io/library/python:3.12-slim", ("docker.io", "library/python", "3.12-slim"), HUB),
        ("index.docker.io/library/python:3", ("docker.io", "library/python", "3"), HUB),
        ("bitnami/python:3", ("docker.io", "bitnami/python", "3"), HUB),
        ("ghcr.io/acme/a__b.c/d-e:V1", ("ghcr.io", "acme/a__b.c/d-e", "V1"), "https://ghcr.io"),
        ("reg:5000/base:1", ("reg:5000", "base", "1"), "https://reg:5000"),
        ("localhost:5000/base:1", ("localhost:5000", "base", "1"), "http://localhost:5000"),
        ("127.0.0.1/base:1", ("127.0.0.1", "base", "1"), "http://127.0.0.1"),
        ("[::1]:5000/base:1", ("[::1]:5000", "base", "1"), "http://[::1]:5000"),
        ("[fd00::7]/base:1", ("[fd00::7]", "base", "1"), "https://[fd00::7]"),
    ],
)
def test_a_reference_names_a_registry_a_repository_and_a_tag(
    text: str, parts: tuple[str, str, str], address: str
) -> None:
    assert parse_reference(text) == Reference(*parts)
    assert registry_address(parse_reference(text).registry) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("python", r"'python' has no tag\. Add one: python:TAG"),
        ("reg:5000/python", r"has no tag"),
        (f"python:3@{EMPTY}", r"has a digest\. Pin 'python:3' instead"),
        ("python:3@sha256:12", r"has a digest"),
        ("localhost/finetune-base:1", r"no registry has its digest"),
        ("", r"has no tag"),
        (":3", r"has no tag"),
        ("python:", r"is not the reference"),
        ("Python:3", r"is not the reference"),
        ("python:3 ", r"is not the reference"),
        ("python:3\n", r"is not the reference"),
        ("a/../b:1", r"is not the reference"),
        ("a//b:1", r"is not the reference"),
        ("a/b?x=1:1", r"is not the reference"),
        ("user:word@reg.example/a:1", r"has a digest"),
        ("reg.example:99999/a:1", r"is not the reference"),
        ("reg.example:/a:1", r"is not the reference"),
        ("https://reg.example/a:1", r"is not the reference"),
        ("reg..example/a:1", r"is not the reference"),
        (f"python:{'x' * 129}", r"is not the reference"),
    ],
)
def test_another_form_is_refused_with_the_fix(text: str, message: str) -> None:
    with pytest.raises(BaseImageError, match=message):
        parse_reference(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (f"python:3@{EMPTY}", ("python:3", EMPTY)),
        ("python:3", ("python:3", "")),
        ("python:3@sha256:12", ("python:3", "")),
        (f"python:3@{EMPTY}0", ("python:3", "")),
        (f"python:3@{EMPTY.upper()}", ("python:3", "")),
    ],
)
def test_only_a_whole_digest_is_one(text: str, parts: tuple[str, str]) -> None:
    assert split_digest(text) == parts
