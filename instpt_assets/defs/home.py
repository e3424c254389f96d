"""The Dagster instance: `DAGSTER_HOME`, by default `.instpt/dagster/<recipe name>`, configured from `deploy/dagster.yaml`.

`python -m instpt_assets.defs.home` prepares it, registers the recipe's shards and prints its path.
"""

import os
import shutil
import sys
from pathlib import Path

import dagster as dg

from instpt_assets.defs.dead_runs import end_dead_runs
from instpt_assets.defs.project import Project
from instpt_assets.recipe.loading import ConfigurationError
from instpt_assets.recipe.recipe import Recipe

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "dagster.yaml"


def prepare_home(recipe: Recipe) -> Path:
    """The instance's folder, made and configured if it does not exist; an own `dagster.yaml` in it is left alone. Sets `DAGSTER_HOME`."""
    home = Path(os.environ.get("DAGSTER_HOME") or Path(".instpt", "dagster", recipe.name)).absolute()
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        shutil.copyfile(CONFIGURATION, home / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def main() -> None:
    """Prepare the instance and register the shards, so that the first click on Materialize works."""
    from instpt_assets.defs.shards import register

    try:
        project = Project.from_environment()
        home = prepare_home(project.recipe)
        with dg.DagsterInstance.get() as instance:
            end_dead_runs(instance)
            register(project, instance)
    except (ConfigurationError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(home)


if __name__ == "__main__":
    main()
