"""Checkpoints scored through lm-eval: tasks that it ships, and tasks built from held-out documentation.

`prepare` builds the tasks once; `evaluate_checkpoint` loads one model and scores it on all of them, held-out bits per byte included. torch,
transformers and lm_eval are imported inside the functions: only workers call them.
"""

import hashlib
import json
import os
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any

from instpt_assets.corpus.documentation import read_documentation
from instpt_assets.evaluation.bits_per_byte import METRIC, TASK, measure_bits
from instpt_assets.evaluation.documentation_tasks import LocalTask, build_tasks
from instpt_assets.evaluation.scores import CheckpointScores, Example, Score
from instpt_assets.evaluation.statistics import weighted_mean
from instpt_assets.recipe.evaluation import Evaluation, HarnessTask
from instpt_assets.store.manifest import canonical_json

Progress = Callable[[Mapping[str, Any]], None]

_BOOTSTRAPS = 100  # resamplings where a metric of lm-eval's own tasks has no closed standard error; the local tasks' all have one


@dataclass(frozen=True)
class PreparedTasks:
    """Everything that checkpoints are scored on, ready to run."""

    evaluation: Evaluation
    local: Mapping[str, LocalTask]
    """Tasks built here, by name."""
    documents: Mapping[str, str]
    """Held-out texts for bits per byte, by name."""
    manager: Any
    """lm-eval's TaskManager over the task files (and its own tasks where the recipe names any)."""

    @property
    def harness(self) -> tuple[HarnessTask, ...]:
        """All tasks that go through lm-eval."""
        built = (HarnessTask(task=task.name, num_fewshot=0) for task in self.local.values())
        return (*built, *self.evaluation.harness_tasks)


def prepare(evaluation: Evaluation, folder: Path) -> PreparedTasks:
    """Build the tasks and write their files.

    Args:
        evaluation: the recipe's part.
        folder: an existing folder for the task files; needed as long as checkpoints are scored.

    Raises:
        ValueError: the held-out documentation is not installed or too small, or lm-eval has no task of a name.
    """
    if not evaluation.harness_tasks:
        # Nothing is to be fetched; without these, libraries ask the hub on a machine that may have no network.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    _quiet()
    from lm_eval.tasks import TaskManager

    documents = sorted(read_documentation(evaluation.held_out), key=lambda d: d.name) if evaluation.held_out else []
    local = build_tasks(documents, num_examples=evaluation.num_examples, seed=evaluation.seed) if documents else []
    chosen = random.Random(evaluation.seed).sample(documents, min(len(documents), evaluation.num_examples))
    write_task_files(local, folder)
    manager = TaskManager(include_path=str(folder) if local else None, include_defaults=bool(evaluation.harness_tasks))
    check_task_names([task.task for task in evaluation.harness_tasks], manager.all_tasks)
    texts = {document.name: document.text for document in sorted(chosen, key=lambda d: d.name)}
    return PreparedTasks(evaluation, {task.name: task for task in local}, texts, manager)


def check_task_names(names: Iterable[str], known: Collection[str]) -> None:
    """Refuse names of tasks, groups and tags that lm-eval does not know.

    Raises:
        ValueError: it lacks some; the message has what is spelt most like them.
    """
    for name in names:
        if name not in known:
            near = get_close_matches(name, known)
            meant = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ValueError(
                f"evaluation.harness_tasks: lm-eval {version('lm-eval')} has no task '{name}'{meant} (`lm-eval ls tasks` lists all)"
            )


def write_task_files(tasks: Iterable[LocalTask], folder: Path) -> None:
    """Write `<task>.jsonl` and `<task>.yaml` for `lm_eval --include_path <folder>`; the YAML names the data by its absolute path."""
    for task in tasks:
        data = (folder / f"{task.name}.jsonl").absolute()
        data.write_text("".join(f"{canonical_json(example)}\n" for example in task.examples), encoding="utf-8")
        source = {
            "task": task.name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder.absolute() / "cache")},
            "test_split": "test",
        }
        # JSON is YAML.
        (folder / f"{task.name}.yaml").write_text(json.dumps({**source, **task.config}, indent=1), encoding="utf-8")


def evaluate_checkpoint(
    checkpoint: Path | str, tasks: PreparedTasks, *, batch_size: int, device: str = "cpu", progress: Progress = lambda _: None
) -> CheckpointScores:
    """Score one checkpoint on everything.

    The model runs in the data type of its checkpoint, with log-softmax in float32. Prompts follow the tokenizer's `<s>`
    where it has one apart from `</s>`, and nothing elsewhere; documents follow `<s>`, or else `</s>`.

    Args:
        checkpoint: a Hugging Face folder (or hub name) with model and tokenizer.
        tasks: from `prepare`.
        batch_size: requests a forward pass.
        device: torch device.
        progress: called when the model is loaded and after each step.

    Raises:
        OSError: the checkpoint is no model that transformers loads.
    """
    _quiet()
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(str(checkpoint), dtype="auto", trust_remote_code=False).to(device).eval()

    class Quiet(HFLM):
        """Without a bar a task: lm-eval asks for it at each call, which overrides tqdm's own switch."""

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm)

        def _loglikelihood_tokens(self, requests: list[Any], disable_tqdm: bool = True, override_bs: int | None = None) -> Any:
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
            return super().loglikelihood_rolling(requests, disable_tqdm)

        def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
            return super().generate_until(requests, disable_tqdm)

    lm = Quiet(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, device=device, softmax_dtype=torch.float32)
    progress({"step": "model loaded"})
    scores: list[Score] = []
    examples: list[Example] = []
    if tasks.documents:
        found = _bits(model, tokenizer, tasks, max_length=lm.max_length, batch_size=batch_size)
        scores += found.scores
        examples += found.examples
        progress({"step": "bits per byte measured"})
    for num_fewshot in sorted({task.num_fewshot for task in tasks.harness}):
        named = [task.task for task in tasks.harness if task.num_fewshot == num_fewshot]
        found = _run(lm, named, num_fewshot, tasks)
        scores += found.scores
        examples += found.examples
        progress({"step": f"{num_fewshot}-shot tasks scored", "tasks": named})
    return CheckpointScores(tuple(scores), tuple(examples))


def load_tokenizer(checkpoint: Path | str) -> Any:
    """The checkpoint's tokenizer, with padding, putting `<s>` in front of every text if it has one that is not its `</s>`."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(checkpoint), trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    bos = tokenizer.bos_token
    separate = bos is not None and bos != tokenizer.eos_token
    if separate and tokenizer("a")["input_ids"][:1] != [tokenizer.bos_token_id]:
        template = TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.bos_token_id)])
        tokenizer.backend_tokenizer.post_processor = template
    return tokenizer


def _bits(model: Any, tokenizer: Any, tasks: PreparedTasks, *, max_length: int, batch_size: int) -> CheckpointScores:
    bits = measure_bits(model, tokenizer, tasks.documents, max_length=max_length, batch_size=batch_size)
    examples = tuple(
        Example(TASK, document.id, METRIC, document.id, "", "", document.bits / document.num_bytes, document.num_bytes) for document in bits
    )
    estimate = weighted_mean([e.score for e in examples], [e.weight for e in examples])
    made_from = _hash(sorted(tasks.documents.items()))
    return CheckpointScores((Score(TASK, METRIC, estimate.value, estimate.stderr, 0, len(bits), made_from, "transformers"),), examples)


def _run(lm: Any, names: Sequence[str], num_fewshot: int, tasks: PreparedTasks) -> CheckpointScores:
    from lm_eval import simple_evaluate

    scores: list[Score] = []
    examples: list[Example] = []
    for limit, chosen in (
        (None, [name for name in names if name in tasks.local]),
        (tasks.evaluation.limit, [name for name in names if name not in tasks.local]),
    ):
        if not chosen:
            continue
        results: Any = simple_evaluate(
            model=lm,
            tasks=list(chosen),
            num_fewshot=num_fewshot,
            limit=limit,
            bootstrap_iters=_BOOTSTRAPS,
            task_manager=tasks.manager,
        )
        samples = results["samples"]
        examples += [example for task in sorted(samples) for example in _examples(task, samples[task])]
        for name in chosen:
            scores += _scores(name, results, tasks.local.get(name), num_fewshot)
    return CheckpointScores(tuple(scores), tuple(examples))


def _scores(name: str, results: Mapping[str, Any], local: LocalTask | None, num_fewshot: int) -> list[Score]:
    """One score a metric of a task or group; keys of lm-eval's results read `<metric>,<filter>` and `<metric>_stderr,<filter>`."""
    members = sorted(task for task in results["samples"] if task == name) or _members(name, results)
    made_from = _hash([local.config, local.examples] if local else [_without_place(results["configs"][task]) for task in members])
    num_examples = sum(len({sample["doc_id"] for sample in results["samples"][task]}) for task in members)
    result = results["results"][name]
    scores = []
    for key in sorted(result):
        metric, _, chosen = key.partition(",")
        value = result[key]
        if not chosen or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        stderr = result.get(f"{metric}_stderr,{chosen}")
        known = float(stderr) if isinstance(stderr, int | float) else None
        label = metric if local or chosen == "none" else f"{metric}/{chosen}"
        shots = local.num_fewshot if local else num_fewshot
        scores.append(Score(name, label, float(value), known, shots, num_examples, made_from, f"lm-eval {version('lm-eval')} hf"))
    return scores


def _members(group: str, results: Mapping[str, Any]) -> list[str]:
    """The tasks of a group, through groups within groups."""
    inner = results.get("group_subtasks", {}).get(group, [])
    return sorted({task for name in inner for task in ([name] if name in results["samples"] else _members(name, results))})


def _without_place(config: Mapping[str, Any]) -> str:
    """A task's configuration as JSON, without the file that it was read from."""
    metadata = {k: v for k, v in (config.get("metadata") or {}).items() if k != "config_source"}
    return json.dumps({**config, "metadata": metadata}, sort_keys=True, default=str)


def _examples(task: str, samples: Sequence[Mapping[str, Any]]) -> list[Example]:
    found = []
    for sample in sorted(samples, key=lambda s: (s["doc_id"], s["filter"])):
        prompt = str(sample["arguments"][0][0])
        choices = [str(arguments[1]).strip() for arguments in sample["arguments"] if isinstance(arguments[1], str)]
        target = sample["target"]
        if isinstance(target, int) and choices and target < len(choices):
            target = choices[target]
        for metric in sample["metrics"]:
            score = sample[metric]
            if not isinstance(score, int | float):
                continue  # F1 and the like need all examples at once
            answer = _chosen(sample, choices, per_character=metric == "acc_norm") if choices else str(sample["filtered_resps"][0])
            label = metric if sample["filter"] in ("none", "answer") else f"{metric}/{sample['filter']}"
            example_id = str(sample["doc"].get("id", sample["doc_id"]))
            found.append(Example(task, example_id, label, prompt, str(target), answer, float(score)))
    return found


def _chosen(sample: Mapping[str, Any], choices: Sequence[str], *, per_character: bool) -> str:
    """The option of the highest log-likelihood (a character's, for acc_norm)."""
    likelihoods = [float(response[0]) for response in sample["filtered_resps"]]
    places = range(min(len(likelihoods), len(choices)))
    return choices[max(places, key=lambda i: likelihoods[i] / max(1, len(choices[i])) if per_character else likelihoods[i])]


def _hash(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:12]


def _quiet() -> None:
    """A bar a task and checkpoint is noise in a log; progress is told by messages."""
    import logging

    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    for name in ("lm_eval", "lm-eval", "datasets", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
