"""Tasks for lm-eval, made by rules from documentation that no arm was trained on.

Four tasks, each seeded and of at most `num_examples` examples:

- `documentation_summaries` (multiple choice): what does this object do? The options are summaries of like length, so length tells nothing.
- `documentation_reading` (multiple choice): a passage, and a question about one of its parameters; the other options stand in the passage
  too where it has enough, so that recognising what stands there is not enough.
- `documentation_names` (completion, zero-shot): a documentation text cut before a name (a parameter, the object) that stood in it before.
- `documentation_answers` (completion, two solved examples in front): a passage and a question whose answer stands in it.

Positions of right options are balanced. The same documents, seed and number give the same examples.
"""

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from instpt_assets.corpus.documentation import DocumentedObject

NUM_OPTIONS = 4
"""Options a multiple choice."""
NUM_SHOTS = 2
"""Solved examples in front of each question of `documentation_answers`."""

_BLOCK = 12  # options come from blocks of so many candidates of nearly equal length
_MAX_PASSAGE = 350  # characters: two solved examples and a question fit a window of 512 tokens
_MAX_TEXT = 800
_MAX_ANSWER = 40
_WORD = re.compile(r"\b[A-Za-z_]\w{2,30}\b")


@dataclass(frozen=True)
class LocalTask:
    """One task: its examples and its lm-eval configuration, without the place of the data file."""

    name: str
    """Name in lm-eval and in the score tables."""
    examples: tuple[dict[str, Any], ...]
    """One mapping an example: `id`, `prompt`, and `choices` with `gold` or `target`."""
    config: dict[str, Any]
    """Everything in the task's YAML file but the data file."""
    num_fewshot: int = 0
    """Solved examples that stand in each prompt already."""


@dataclass(frozen=True)
class Question:
    """A question whose answer stands in the passage."""

    id: str
    """The object's name, and what is asked."""
    kind: str
    """`parameter` (which one is described so?) or `type` (of which type is it?)."""
    passage: str
    text: str
    answer: str
    rivals: tuple[str, ...]
    """Other answers of the kind that stand in the passage."""


def build_tasks(documents: Iterable[DocumentedObject], *, num_examples: int, seed: int) -> list[LocalTask]:
    """The tasks of held-out documentation.

    Args:
        documents: documented objects; their order does not matter.
        num_examples: at most so many examples a task.
        seed: of every choice.

    Raises:
        ValueError: the documentation is too small to give any example of a task.
    """
    ordered = sorted(documents, key=lambda d: d.name)
    questions = [q for document in ordered for q in ask(document)]
    builders: list[Callable[[random.Random], LocalTask]] = [
        lambda rng: _summaries(ordered, num_examples, rng),
        lambda rng: _reading(questions, num_examples, rng),
        lambda rng: _names(ordered, num_examples, rng),
        lambda rng: _answers(questions, num_examples, rng),
    ]
    tasks = [build(random.Random(f"{seed}/{number}")) for number, build in enumerate(builders)]
    for task in tasks:
        if not task.examples:
            raise ValueError(f"the held-out documentation ({len(ordered)} objects) gives no example of {task.name}: hold out more of it")
    return tasks


def ask(document: DocumentedObject) -> list[Question]:
    """The questions on one object's parameters; none if fewer than two are described."""
    described = [p for p in document.parameters if p.description and p.type and len(p.type) <= _MAX_ANSWER and "\n" not in p.type]
    lines = [f"- {p.name} ({p.type}): {_first_sentence(p.description)}" for p in described]
    head = f"{document.name}: {document.summary}\n"
    found = []
    for place, parameter in enumerate(described):
        shown = _window(lines, place, _MAX_PASSAGE - len(head))
        if len(shown) < 2:
            continue
        passage = head + "\n".join(lines[i] for i in shown)
        others = [described[i] for i in shown if i != place]
        sentence = _first_sentence(parameter.description).rstrip(".")
        alike = any(other.name == parameter.name or _first_sentence(other.description).rstrip(".") == sentence for other in others)
        if not alike:
            asked = f'Which parameter of {document.name} is described as "{sentence}"?'
            rivals = tuple(sorted({other.name for other in others}))
            if parameter.name not in sentence:
                found.append(Question(f"{document.name}/{parameter.name}/name", "parameter", passage, asked, parameter.name, rivals))
            asked = f"Of which type is the parameter {parameter.name} of {document.name}?"
            rivals = tuple(sorted({other.type for other in others} - {parameter.type}))
            found.append(Question(f"{document.name}/{parameter.name}/type", "type", passage, asked, parameter.type, rivals))
    return found


def _summaries(documents: Sequence[DocumentedObject], num_examples: int, rng: random.Random) -> LocalTask:
    by_summary = {d.summary: d.name for d in documents if 20 <= len(d.summary) <= 120 and "\n" not in d.summary}
    candidates = sorted(by_summary, key=lambda s: (len(s), s))
    blocks = [candidates[i : i + _BLOCK] for i in range(0, len(candidates) - _BLOCK + 1, _BLOCK)] or [candidates]
    chosen = [(summary, block) for block in blocks if len(block) >= NUM_OPTIONS for summary in block]
    rng.shuffle(chosen)
    places = _balanced_places(min(num_examples, len(chosen)), rng)
    examples = []
    for (summary, block), place in zip(chosen, places, strict=False):
        wrong = rng.sample([s for s in block if s != summary], NUM_OPTIONS - 1)
        prompt = f"Question: What does {by_summary[summary]} do?\nAnswer:"
        examples.append({"id": by_summary[summary], "prompt": prompt, "choices": [*wrong[:place], summary, *wrong[place:]], "gold": place})
    return LocalTask("documentation_summaries", tuple(examples), _multiple_choice())


def _reading(questions: Sequence[Question], num_examples: int, rng: random.Random) -> LocalTask:
    pools = {kind: sorted({q.answer for q in questions if q.kind == kind}) for kind in ("parameter", "type")}
    chosen = _one_kind_each(questions, rng)[:num_examples]
    examples = []
    for question, place in zip(chosen, _balanced_places(len(chosen), rng), strict=True):
        rivals = rng.sample(question.rivals, min(NUM_OPTIONS - 1, len(question.rivals)))
        known = {question.answer, *question.rivals}
        # What the passage does not offer comes from other objects: answers of like length.
        near = sorted((a for a in pools[question.kind] if a not in known), key=lambda a: (abs(len(a) - len(question.answer)), a))[:_BLOCK]
        missing = NUM_OPTIONS - 1 - len(rivals)
        if missing > len(near):
            continue
        wrong = rivals + rng.sample(near, missing)
        rng.shuffle(wrong)
        prompt = f"{question.passage}\n\nQuestion: {question.text}\nAnswer:"
        choices = [*wrong[:place], question.answer, *wrong[place:]]
        examples.append({"id": question.id, "prompt": prompt, "choices": choices, "gold": place})
    return LocalTask("documentation_reading", tuple(examples), _multiple_choice())


def _names(documents: Sequence[DocumentedObject], num_examples: int, rng: random.Random) -> LocalTask:
    found = []
    for document in documents:
        names = {p.name for p in document.parameters if len(p.name) > 2} | {document.name.rsplit(".", 1)[-1]}
        text = document.text[:_MAX_TEXT]
        words = [match for match in _WORD.finditer(text) if match[0] in names and text[match.start() - 1] == " "]
        repeated = [match for match in words if re.search(rf"\b{re.escape(match[0])}\b", text[: match.start()])]
        if repeated:
            last = repeated[-1]
            found.append({"id": f"{document.name}/{last.start()}", "prompt": text[: last.start()].rstrip(), "target": last[0]})
    rng.shuffle(found)
    return LocalTask("documentation_names", tuple(found[:num_examples]), _completion(r"^\s*(\w+)", max_tokens=12))


def _answers(questions: Sequence[Question], num_examples: int, rng: random.Random) -> LocalTask:
    chosen = _one_kind_each(questions, rng)
    examples = []
    for question in chosen[:num_examples]:
        shots: list[Question] = []
        for shot in rng.sample(chosen, min(len(chosen), 4 * NUM_SHOTS + 4)):
            if _owner(shot) not in {_owner(question), *map(_owner, shots)} and len(shots) < NUM_SHOTS:
                shots.append(shot)
        if len(shots) < NUM_SHOTS:
            continue
        solved = "".join(f"{s.passage}\n\nQuestion: {s.text}\nAnswer: {s.answer}\n\n" for s in shots)
        prompt = f"{solved}{question.passage}\n\nQuestion: {question.text}\nAnswer:"
        examples.append({"id": question.id, "prompt": prompt, "target": question.answer})
    return LocalTask("documentation_answers", tuple(examples), _completion(r"^\s*(.*?)\s*$", max_tokens=16), num_fewshot=NUM_SHOTS)


def _multiple_choice() -> dict[str, Any]:
    metrics = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")]
    return {
        "output_type": "multiple_choice",
        "doc_to_text": "prompt",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metric_list": metrics,
    }


def _completion(answer: str, *, max_tokens: int) -> dict[str, Any]:
    exact = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True, "ignore_punctuation": True}
    taken = [{"function": "regex", "regex_pattern": answer, "fallback": ""}, {"function": "take_first"}]
    return {
        "output_type": "generate_until",
        "doc_to_text": "prompt",
        "doc_to_target": "target",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": max_tokens},
        "filter_list": [{"name": "answer", "filter": taken}],
        "metric_list": [exact],
    }


def _one_kind_each(questions: Sequence[Question], rng: random.Random) -> list[Question]:
    """The questions of varied answers, kinds taken in turn, so that no kind outweighs the other while both last."""
    kinds = [_varied([q for q in questions if q.kind == kind], rng) for kind in ("parameter", "type")]
    longest = max(map(len, kinds), default=0)
    return [kind[i] for i in range(longest) for kind in kinds if i < len(kind)]


def _varied(questions: Sequence[Question], rng: random.Random) -> list[Question]:
    """The questions shuffled, each answer's second question behind every answer's first, and so on: no answer can be guessed often."""
    turns: dict[str, int] = {}
    ordered = []
    for question in rng.sample(questions, len(questions)):
        turns[question.answer] = turns.get(question.answer, 0) + 1
        ordered.append((turns[question.answer], question))
    return [question for _, question in sorted(ordered, key=lambda item: item[0])]


def _balanced_places(count: int, rng: random.Random) -> list[int]:
    places = [i % NUM_OPTIONS for i in range(count)]
    rng.shuffle(places)
    return places


def _window(lines: Sequence[str], place: int, room: int) -> list[int]:
    """Indices of the lines around `place` that fit `room` characters, grown to both sides in turn."""
    shown, size = [place], len(lines[place]) + 1
    for distance in range(1, len(lines)):
        for index in (place - distance, place + distance):
            adjacent = index + 1 == shown[0] or index - 1 == shown[-1]
            if 0 <= index < len(lines) and adjacent and size + len(lines[index]) + 1 <= room:
                size += len(lines[index]) + 1
                shown = sorted([*shown, index])
    return shown if size <= room else []


def _first_sentence(text: str) -> str:
    flat = " ".join(text.split())
    return re.split(r"(?<=[.!?])\s", flat, maxsplit=1)[0]


def _owner(question: Question) -> str:
    return question.id.split("/")[0]
