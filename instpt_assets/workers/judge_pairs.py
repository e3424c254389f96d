"""Worker of `<pair set>/corpus_quality` where the recipe names a judge: the measures, and the judge's verdicts on the pairs of a sample."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instpt_assets.augmentation.judging import Judgement, Question, judge_pairs
from instpt_assets.augmentation.quality import make_corpus_quality
from instpt_assets.recipe.execution import Execution
from instpt_assets.recipe.quality import CorpusQuality
from instpt_assets.store.making import Inputs
from instpt_assets.store.manifest import Spec
from instpt_assets.training.base_models import planned_base_model
from instpt_assets.training.writer_model import writer_model
from instpt_assets.workers.runtime import Report, run_worker


def make(spec: Spec, inputs: Inputs, execution: Execution, out: Path, progress: Report) -> dict[str, Any]:
    """Measure the pair set; the judge is started when the texts have been read."""
    judge = CorpusQuality.model_validate_json(json.dumps(spec.recipe["corpus_quality"])).judge
    assert judge is not None, "without a judge no worker is needed"
    model = writer_model(judge.writer)
    folder = None if model is None else planned_base_model(spec, model.patterns).folder()

    def judge_all(questions: Sequence[Question]) -> Judgement:
        return judge_pairs(questions, judge, folder, execution, progress=progress)

    return make_corpus_quality(spec, inputs, out, judge_all)


if __name__ == "__main__":
    run_worker(make)
