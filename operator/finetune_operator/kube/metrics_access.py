"""Who may read the metrics of an operator that serves many teams: asked of the API server.

A TokenReview says whose token it is, a SubjectAccessReview whether they may GET /metrics, as
for the control plane's own components. No token is kept: answers are known by its digest.
"""

import hashlib
import time

from finetune_api.wire import JsonObject
from finetune_operator.kube.client import ApiError, Client

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
KEPT_SECONDS = 60.0  # a right that is taken away holds at most so much longer
KEPT_ANSWERS = 64
TOKEN_CHARACTERS = 16384


class MetricsAccess:
    """One for the process; `check` gives HTTP's status."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._answers: dict[str, tuple[float, int]] = {}

    async def check(self, authorization: str) -> int:
        """Of an Authorization header: 200, 401 (who?), 403 (not allowed), 503 (can't be asked)."""
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > TOKEN_CHARACTERS:
            return 401
        digest = hashlib.sha256(token.encode()).hexdigest()
        until, status = self._answers.get(digest, (0.0, 0))
        if time.monotonic() < until:
            return status
        try:
            status = await self._ask(token)
        except ApiError:
            return 503
        if len(self._answers) >= KEPT_ANSWERS:
            self._answers.clear()
        self._answers[digest] = (time.monotonic() + KEPT_SECONDS, status)
        return status

    async def _ask(self, token: str) -> int:
        review = await self._client.create(TOKEN_REVIEWS, _review("authentication", token=token))
        found = review.get("status", {})
        if not found.get("authenticated"):
            return 401
        user = found.get("user", {})
        asked = _review(
            "authorization",
            user=user.get("username", ""),
            groups=user.get("groups", []),
            uid=user.get("uid", ""),
            extra=user.get("extra", {}),
            nonResourceAttributes={"path": "/metrics", "verb": "get"},
        )
        answer = await self._client.create(ACCESS_REVIEWS, asked)
        return 200 if answer.get("status", {}).get("allowed") else 403


def _review(group: str, **spec: object) -> JsonObject:
    kind = {"authentication": "TokenReview", "authorization": "SubjectAccessReview"}[group]
    return {"apiVersion": f"{group}.k8s.io/v1", "kind": kind, "spec": spec}
