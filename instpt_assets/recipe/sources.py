"""Where a recipe says that files lie: URLs, which stand in manifests, events and ids, and so hold no secret."""

import re
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from instpt_assets.recipe.documentation import check_installed

_USER = re.compile(r"[A-Za-z][\w+.-]*://[^/?#]*@")
_SIGNED = re.compile(
    r"://.*[?&](?:x-(?:amz|goog)-(?:signature|credential|security-token)|signature|sig|(?:access_?)?token|api_?key)=", re.IGNORECASE
)


def _without_secret(url: str) -> str:
    if _USER.match(url) or _SIGNED.search(url):
        raise ValueError(
            "the URL holds a name, password or signature, and would stand in manifests and events: leave it out, and give credentials by "
            "what the client reads (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, HF_TOKEN, ~/.netrc)"
        )
    return url


def _source(url: str) -> str:
    return check_installed(url) if url.startswith("pydoc:") else _without_secret(url)


Files = Annotated[str, StringConstraints(min_length=1), AfterValidator(_without_secret)]
"""A file, a folder, a glob or a remote URL."""
Source = Annotated[str, StringConstraints(min_length=1), AfterValidator(_source)]
"""`Files`, or `pydoc://…` of documentation that is installed."""
