"""The doctor's warnings about stores that lack a part of S3, with a real S3 server."""

from collections.abc import Iterator

import pytest

from finetune_api.uris import S3Uri
from finetune_cli.commands.doctor.network_checks import BUNDLES
from finetune_cli.commands.doctor.storage_checks import storage_findings
from finetune_storage import probe
from finetune_storage.s3 import Storage
from tests.support.proxy import FaultyProxy, Store
from tests.support.stores import STORES, RefusesListings

pytestmark = pytest.mark.slow

ETAGS, READS, WRITES = (
    probe.NO_ETAGS.problem,
    probe.NO_CONDITIONAL_READS.problem,
    probe.NO_CONDITIONAL_WRITES.problem,
)
UPLOADS = probe.NO_MULTIPART_LISTING.format(code="AccessDenied")


@pytest.fixture
def proxy(s3_endpoint: str, aws: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_endpoint) as made:
        aws.setenv("AWS_ENDPOINT_URL", made.url)
        yield made


@pytest.mark.parametrize(
    ("store", "problems"),
    [
        (STORES["S3"](), []),
        (STORES["ETags without quotes"](), []),
        (STORES["no ETags"](), [ETAGS]),
        (STORES["weak ETags"](), [ETAGS]),
        (STORES["changing ETags"](), [ETAGS]),
        (STORES["other ETags in GETs"](), [ETAGS]),
        (STORES["conditions are ignored"](), [READS, WRITES]),
        (STORES["conditions are not implemented"](), [READS, WRITES]),
        (STORES["conditions are bad requests"](), [READS, WRITES]),
        (RefusesListings(), [UPLOADS]),
    ],
)
def test_the_doctor_says_what_is_weaker_on_a_store(
    proxy: FaultyProxy,
    storage: Storage,
    bucket: str,
    store: Store,
    problems: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in BUNDLES:  # the doctor reports them, too
        monkeypatch.delenv(name, raising=False)
    proxy.store = store
    first, *others = storage_findings(f"s3://{bucket}/data")
    assert first.level == "ok"
    assert first.detail == f"s3://{bucket}/data is readable and writable"
    assert [finding.detail for finding in others] == problems
    for finding in others:
        assert (finding.level, finding.check) == ("warning", "S3 store")
        assert finding.remedy
    assert storage.list(S3Uri(bucket, "data")) == []
