"""The Dagster instance: `DAGSTER_HOME`, by default `.instpt/dagster/<recipe name>`, configured from `deploy/dagster.yaml`.

`python -m instpt_assets.defs.home` prepares it, registers the recipe's shards and prints its path.
"""

import argparse
import fcntl
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from instpt_assets.defs.dead_runs import end_dead_runs
from instpt_assets.defs.project import Project
from instpt_assets.errors import UserError
from instpt_assets.recipe.recipe import Recipe
from instpt_assets.store.store import file_sha256

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "dagster.yaml"
SHIPPED = "dagster.yaml.shipped"
"""Beside an instance's configuration: the SHA-256 of the shipped one that it was last compared with."""

LOCK = ".preparing"
"""A file of the instance's folder that is locked while the instance is prepared."""


def prepare_home(recipe: Recipe) -> Path:
    """The instance's folder, made and configured if it does not exist. Sets `DAGSTER_HOME`.

    A `dagster.yaml` of ours follows what is shipped; an own one is left alone, and that is said when the shipped one has changed. Of
    several commands that begin at once one makes the instance's databases, which Dagster could not do side by side.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or Path(".instpt", "dagster", recipe.name)).absolute()
    home.mkdir(parents=True, exist_ok=True)
    os.environ["DAGSTER_HOME"] = str(home)
    with (home / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _configure(home)
        with dg.DagsterInstance.get() as instance:
            _ = instance.run_storage, instance.event_log_storage, instance.schedule_storage  # made when they are first asked for
    return home


def _configure(home: Path) -> None:
    target, note = home / "dagster.yaml", home / SHIPPED
    shipped = file_sha256(CONFIGURATION)
    noted = note.read_text().strip() if note.exists() else None
    found = file_sha256(target) if target.exists() else None
    if found in (None, noted):
        shutil.copyfile(CONFIGURATION, target)
    elif shipped not in (found, noted):
        print(f"{target} is kept as it is, unlike {CONFIGURATION}: compare them, or delete it to take that one", file=sys.stderr)
    note.write_text(f"{shipped}\n")


def check_port(host: str, port: int) -> None:
    """See that the UI can be served there, before anything is started.

    Raises:
        UserError: something listens on the port.
    """
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:  # nobody answers
        return
    raise UserError(f"PORT: {port} is taken, maybe by another `make ui`: end that, or say `make ui PORT={port + 1}`")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare the instance and register the shards, so that the first click on Materialize works."""
    from instpt_assets.defs.shards import register

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--host", default="127.0.0.1", help="address of the UI")
    parser.add_argument("--port", type=int, help="port of the UI, which must be free; not looked at by default")
    options = parser.parse_args(arguments)
    try:
        if options.port is not None:
            check_port(options.host, options.port)
        project = Project.from_environment()
        home = prepare_home(project.recipe)
        with dg.DagsterInstance.get() as instance:
            end_dead_runs(instance)
            register(project, instance)
    except (UserError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(home)


if __name__ == "__main__":
    main()
