"""The base of every configuration model, and names that become asset keys and folders."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, SerializerFunctionWrapHandler, StringConstraints, model_serializer


def matches(pattern: str, words: str) -> AfterValidator:
    """Refuses a text that the whole of the regular expression does not match, and says in words what it should be."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(f"{text!r} {words}")
        return text

    return AfterValidator(check)


Name = Annotated[
    str,
    StringConstraints(max_length=60),
    matches(r"[a-z][a-z0-9_]*", "is no name: write lower case letters, digits and underscores, a letter first"),
]
"""A corpus, pair set, arm or recipe name: lower case letters, digits and underscores."""


LATER = "came later"
"""Marks (`Annotated[…, LATER]`) a field that a part got after artifacts had been made with it: at its default it is left out of what is
hashed, as if there were no such field, so that no identity changes."""


class Part(BaseModel):
    """A frozen piece of configuration; unknown fields and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    def hashed(self, *, without: Any = None) -> dict[str, Any]:
        """The JSON form that goes into identities and manifests.

        Args:
            without: what the stage does not depend on, as pydantic's `exclude`.
        """
        return self.model_dump(mode="json", exclude=without)

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        later = {
            name for name, field in type(self).model_fields.items() if LATER in field.metadata and getattr(self, name) == field.default
        }
        return {name: value for name, value in serialize(self).items() if name not in later}
