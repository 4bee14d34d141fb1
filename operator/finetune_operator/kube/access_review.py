"""Checks who may read the metrics of an operator that serves many teams.

As for the components of the control plane, a TokenReview identifies the client, and a
SubjectAccessReview shows whether it may GET /metrics. Answers are cached by the digest of the
token; the token itself is not kept.
"""

import hashlib
import time

from finetune_api.wire import JsonObject
from finetune_operator.kube.client import ApiError, Client

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
KEPT_SECONDS = 60.0  # a revoked permission holds at most this much longer
KEPT_ANSWERS = 64
TOKEN_CHARACTERS = 16384


class AccessReviewer:
    """Checks requests for /metrics. One per process."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._answers: dict[str, tuple[float, int]] = {}

    async def check(self, authorization: str) -> int:
        """Return the HTTP status for an Authorization header: 200, 401, 403, or 503.

        401: the client is unknown. 403: it has no permission. 503: the API server did not answer.
        """
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > TOKEN_CHARACTERS:
            return 401
        digest = hashlib.sha256(token.encode()).hexdigest()
        until, status = self._answers.get(digest, (0.0, 0))
        if time.monotonic() < until:
            return status
        try:
            status = await self._review_token(token)
        except ApiError:
            return 503
        if len(self._answers) >= KEPT_ANSWERS:
            self._answers.clear()
        self._answers[digest] = (time.monotonic() + KEPT_SECONDS, status)
        return status

    async def _review_token(self, token: str) -> int:
        review = await self._client.create(TOKEN_REVIEWS, _review("authentication", token=token))
        found = review.get("status", {})
        if not found.get("authenticated"):
            return 401
        user = found.get("user", {})
        access = _review(
            "authorization",
            user=user.get("username", ""),
            groups=user.get("groups", []),
            uid=user.get("uid", ""),
            extra=user.get("extra", {}),
            nonResourceAttributes={"path": "/metrics", "verb": "get"},
        )
        answer = await self._client.create(ACCESS_REVIEWS, access)
        return 200 if answer.get("status", {}).get("allowed") else 403


def _review(group: str, **spec: object) -> JsonObject:
    kind = {"authentication": "TokenReview", "authorization": "SubjectAccessReview"}[group]
    return {"apiVersion": f"{group}.k8s.io/v1", "kind": kind, "spec": spec}
