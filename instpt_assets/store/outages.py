"""S3 that cannot be reached, or refuses everything, for a moment: the requests of a store wait for it."""

from typing import Any

ATTEMPTS = 11
"""Of one request; s3fs waits ever longer between them, 29 s in all. By default it gives up after 2 s, and at once where nothing answers."""


def outlast_outages(fs: Any) -> None:
    """Let an S3 file system try a request again where the server cannot be reached, is overloaded or fails."""
    from s3fs.core import set_custom_error_handler

    fs.retries = ATTEMPTS
    set_custom_error_handler(_may_pass)


def _may_pass(error: Exception) -> bool:
    """Whether trying again can help; s3fs itself knows of lost connections and some of the throttling."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status == 429 or status >= 500
    return isinstance(error, exceptions.ConnectionError)
