"""What S3 answers in trouble: a store's requests wait where it may pass; a bucket that does not exist is told apart from one that holds nothing."""

from typing import Any

ATTEMPTS = 11
"""Of one request; s3fs waits ever longer between them, 29 s in all. By default it gives up after 2 s, and at once where nothing answers."""


def outlast_outages(fs: Any) -> None:
    """Let an S3 file system try a request again where the server cannot be reached, is overloaded or fails."""
    from s3fs.core import set_custom_error_handler

    fs.retries = ATTEMPTS
    set_custom_error_handler(_may_pass)


def says_no_bucket(error: BaseException) -> bool:
    """Whether the error of an S3 file system says that there is no such bucket; of a file that is missing it raises the same type."""
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code") == "NoSuchBucket"


def _may_pass(error: Exception) -> bool:
    """Whether trying again can help; s3fs itself knows of lost connections and some of the throttling."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status == 429 or status >= 500
    return isinstance(error, exceptions.ConnectionError)
