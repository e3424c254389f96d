"""What a run prints: one short line a message, no more."""

import logging

import dagster as dg

INTERRUPTED = "Execution was interrupted unexpectedly"
"""So Dagster says after Ctrl-C, of a run that it calls failed."""


@dg.logger(config_schema={"log_level": dg.Field(str, default_value="INFO")}, description="One short line a message.")
def console(context: dg.InitLoggerContext) -> logging.Logger:
    """A logger for terminals: time, asset, message."""
    logger = logging.Logger("instpt", level=context.logger_config["log_level"])
    handler = logging.StreamHandler()
    handler.setFormatter(_Short())
    handler.addFilter(_is_news)
    logger.addHandler(handler)
    return logger


def _is_news(record: logging.LogRecord) -> bool:
    """Not what `make materialize` says itself when a run has ended: why a step failed, or that it was interrupted."""
    event = getattr(record, "dagster_meta", {}).get("dagster_event")
    return INTERRUPTED not in record.getMessage() and not (event and event.event_type == dg.DagsterEventType.STEP_FAILURE)


class _Short(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, "dagster_meta", {})
        step = meta.get("step_key") or ""
        message = meta.get("orig_message") or record.getMessage()
        level = "" if record.levelno <= logging.INFO else f"{record.levelname}: "
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"{self.formatTime(record, '%H:%M:%S')} {step.replace('__', '/')}: {level}{message}{trace}"
