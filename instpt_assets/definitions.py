"""The one Definitions object, of the recipe that `INSTPT_RECIPE` names. Light: it imports no torch, vllm, transformers or lm_eval."""

import dagster as dg

from instpt_assets.defs.build import build_definitions
from instpt_assets.defs.project import Project
from instpt_assets.recipe.loading import ConfigurationError

try:
    defs = build_definitions(Project.from_environment())
except ConfigurationError as error:
    # The message says which fields to change; where it was noticed helps nobody.
    raise dg.DagsterInvalidDefinitionError(str(error)) from None
