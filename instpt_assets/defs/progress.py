"""What a worker tells of its progress: a line in the run's log, and from time to time an event in the asset's history."""

import time
from collections.abc import Mapping
from typing import Any

import dagster as dg

OBSERVE_SECONDS = 25.0
"""So often at most an asset gets an event; with a message every ten seconds that is one each half minute, a thousand in a night."""
PACE = 100
"""Of a training that has gone on for long, lines and events become rarer: at most one in so many parts of the time since its first."""
PACE_SECONDS = 300.0
"""But not rarer than this."""


class Progress:
    """Hands a worker's progress messages on."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._context = context
        self._observed: dict[str, float] = {}
        self._begun: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def tell(self, message: Mapping[str, Any]) -> None:
        """Log the message as a line; of passages or steps that are done also as an event, unless the last one is recent."""
        now, asset = time.monotonic(), message["asset"]
        wait = 0.0
        if "num_steps" in message:
            training = f"{asset}/{message.get('partition')}"
            wait = min((now - self._begun.setdefault(training, now)) / PACE, PACE_SECONDS)
            if now - self._told.get(training, -PACE_SECONDS) < wait and message["step"] < message["num_steps"]:
                return
            self._told[training] = now
        line = _told_line(message)
        self._context.log.info(line)
        counted = "passages_done" in message or "num_steps" in message
        if not counted or now - self._observed.get(asset, -PACE_SECONDS) < max(OBSERVE_SECONDS, wait):
            return
        self._observed[asset] = now
        # Of the asset, not of the partition: those of a partition tell how it ended.
        numbers = {name: value for name, value in message.items() if isinstance(value, int | float)}
        where = {"partition": message["partition"]} if message.get("partition") else {}
        self._context.log_event(dg.AssetObservation(asset.split("/"), metadata={"progress": line, **where, **numbers}))


def _told_line(message: Mapping[str, Any]) -> str:
    if "passages_done" in message:
        return passages_line(message)
    return training_line(message) if "num_steps" in message else _line(message)


def training_line(message: Mapping[str, Any]) -> str:
    """`vanilla/pretrained_checkpoint/seed-0: step 1,200 of 5,600, loss 2.914, held out 2.951, …, 41 % MFU, 14 min left`."""
    parts = [f"step {message['step']:,} of {message['num_steps']:,}", f"loss {message['loss']:#.4g}"]
    if "held_out_loss" in message:
        parts.append(f"held out {message['held_out_loss']:#.4g}")
    parts += [f"learning rate {message['learning_rate']:.2g}", f"gradient norm {message['gradient_norm']:.2g}"]
    parts.append(f"{message['tokens_per_second']:,.0f} tokens/s")
    if "mfu" in message:
        parts.append(f"{message['mfu']:.0%} MFU")
    if message["data_wait_share"] >= 0.01:
        parts.append(f"{message['data_wait_share']:.0%} of the time waiting for data")
    if "peak_gpu_gib" in message:
        parts.append(f"{message['peak_gpu_gib']:.1f} GiB on the GPU at most")
    if message["step"] < message["num_steps"]:
        parts.append(f"{duration(message['seconds_left'])} left")
    return f"{_where(message)}: {', '.join(parts)}"


def passages_line(message: Mapping[str, Any]) -> str:
    """`synthesized/instruction_pairs: 1,240 of 5,600 passages, 5,400 tokens/s, 14 min left`."""
    total, left = message.get("passages_total"), message.get("seconds_left")
    parts = [f"{message['passages_done']:,}{'' if total is None else f' of {total:,}'} passages"]
    if message.get("reused"):
        parts.append(f"{message['reused']:,} reused")
    parts.append(f"{message['completion_tokens_per_second']:,.0f} tokens/s")
    if left is not None:
        parts.append(f"{duration(left)} left")
    return f"{message['asset']}: {', '.join(parts)}"


def duration(seconds: float) -> str:
    """`40 s`, `14 min`, `3 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _line(message: Mapping[str, Any]) -> str:
    """`vanilla/eval_scores/seed-0: examples 12, …`; texts stand for themselves."""
    told = {name: value for name, value in message.items() if name not in ("kind", "asset", "partition")}
    values = (
        value if isinstance(value, str) else f"{name} {f'{value:.4g}' if isinstance(value, float) else value}"
        for name, value in told.items()
    )
    return f"{_where(message)}: {', '.join(values)}"


def _where(message: Mapping[str, Any]) -> str:
    return "/".join(message[name] for name in ("asset", "partition") if message.get(name, "all") != "all")
