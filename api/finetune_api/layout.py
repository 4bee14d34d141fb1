"""The layout of a FineTune's files below its output prefix in S3."""

from dataclasses import dataclass

from finetune_api.uris import S3Uri


@dataclass(frozen=True)
class RunLayout:
    """The addresses of one FineTune: `<output>/<namespace>/<name>-<uid8>/...`."""

    root: S3Uri

    @classmethod
    def of(cls, output: str, namespace: str, name: str, uid: str) -> "RunLayout":
        return cls(S3Uri.parse(output).child(namespace, f"{name}-{uid[:8]}"))

    @property
    def checkpoints(self) -> S3Uri:
        return self.root.child("checkpoints")

    def checkpoint(self, step: int) -> S3Uri:
        return self.checkpoints.child(f"step-{step:08d}")

    @property
    def markers(self) -> S3Uri:
        """One small object for each attempt that has started."""
        return self.root.child("markers")

    @property
    def results(self) -> S3Uri:
        return self.root.child("results.csv")

    @property
    def report(self) -> S3Uri:
        """The training report for users."""
        return self.root.child("report.html")

    @property
    def data_report(self) -> S3Uri:
        """All findings in the data as JSON lines. The status has the first 20."""
        return self.root.child("data-report.jsonl")

    @property
    def manifest(self) -> S3Uri:
        """The provenance of the model: data and base model, with digests and versions."""
        return self.root.child("manifest.json")

    @property
    def model(self) -> S3Uri:
        return self.root.child("model")


def model_address(namespace: str, name: str, uid: str) -> str:
    """The form of the address of a FineTune's model below any output prefix, for messages."""
    return f"<output>/{namespace}/{name}-{uid[:8]}/model"


def is_model_address(uri: S3Uri, namespace: str, name: str, uid: str) -> bool:
    """Whether a FineTune with this name and UID publishes its model there, below any output."""
    return uri.key.split("/")[-3:] == [namespace, f"{name}-{uid[:8]}", "model"]


def dataset_uri(output: str, namespace: str, key: str) -> S3Uri:
    """A tokenized dataset: `<output>/<namespace>/datasets/<key>`, shared by equal inputs."""
    return S3Uri.parse(output).child(namespace, "datasets", key)


def base_check_uri(output: str, namespace: str, key: str) -> S3Uri:
    """The verdict on a base model: `<output>/<namespace>/base-checks/<key>.json`."""
    return S3Uri.parse(output).child(namespace, "base-checks", f"{key}.json")


MANIFEST = "manifest.json"  # written last: a prefix without it is incomplete and not used
