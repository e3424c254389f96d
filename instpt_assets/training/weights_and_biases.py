"""A training's figures in Weights & Biases, for who has it installed and set up. Nothing of it can stop a training, and it asks nothing."""

import netrc
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROJECT = "instruction-pretraining"
"""The project, unless WANDB_PROJECT names one."""
_INIT_SECONDS, _FINISH_SECONDS = 30.0, 120.0
_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")


def is_set_up() -> bool:
    """Whether the package is there and WANDB_API_KEY, WANDB_MODE=offline or a login in the netrc file says that it is to be used."""
    mode = os.environ.get("WANDB_MODE", "").lower()
    disabled = mode == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1")
    spec = None if disabled else find_spec("wandb")
    if spec is None or spec.origin is None:  # a folder of runs is named like the package
        return False
    return mode in ("offline", "dryrun") or bool(os.environ.get("WANDB_API_KEY")) or _is_logged_in()


def _is_logged_in() -> bool:
    base = os.environ.get("WANDB_BASE_URL")
    hosts = [urlsplit(base).netloc] if base else _HOSTS
    given = os.environ.get("NETRC")
    for path in [Path(given)] if given else [Path("~/.netrc"), Path("~/_netrc")]:
        try:
            entries = netrc.netrc(path.expanduser())
        except (OSError, netrc.NetrcParseError):
            continue
        if any(entries.authenticators(host) for host in hosts):
            return True
    return False


class WeightsAndBiases:
    """One run there.

    Args:
        name: the run's name.
        run_id: stays the same when the training goes on after a kill, so that its run does too.
        config: what the training follows.
        resumed: whether steps were done before; else a run of that id begins anew.

    Raises:
        Exception: of the package's own, where the run cannot begin.
    """

    def __init__(self, *, name: str, run_id: str, config: Mapping[str, Any], resumed: bool) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=name,
            id=run_id,
            resume="allow" if resumed else None,
            config=dict(config),
            allow_val_change=True,
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                init_timeout=_INIT_SECONDS,
                finish_timeout=_FINISH_SECONDS,
                finish_timeout_raises=False,
            ),
        )

    @property
    def place(self) -> str:
        """Where the run can be looked at: its page, or offline its folder."""
        folder = Path(self._run.dir).parent
        return f"{folder} (offline; `wandb sync {folder}` sends it)" if self._run.offline else str(self._run.url or folder)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Add the figures of a step, by name; those of a step that the run has already are dropped there."""
        self._run.log(dict(values), step=step)

    def close(self, *, failed: bool) -> None:
        """End the run, within two minutes, and wait until the package's own process has written everything: it would be ended with this one."""
        import wandb

        self._run.finish(exit_code=int(failed))
        wandb.teardown()
