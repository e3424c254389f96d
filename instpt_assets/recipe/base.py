"""The base of every configuration model, and names that become asset keys and folders."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
"""A corpus, pair set, arm or recipe name: lower case letters, digits and underscores."""


class Part(BaseModel):
    """A frozen piece of configuration; unknown fields and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    def hashed(self) -> dict[str, object]:
        """The JSON form that goes into identities and manifests."""
        return self.model_dump(mode="json")
