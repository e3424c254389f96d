"""A corpus of many shards through Dagster: what making it takes, and what one more file costs then.

`python -m instpt_assets_tests.benchmarks.many_shards --shards 1000 --documents 200`
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from instpt_assets.defs.materialize import materialize_recipe
from instpt_assets.defs.shards import register

sys.path.append(str(Path(__file__).parents[1] / "defs"))  # where pytest finds the tests' own modules

if TYPE_CHECKING:
    from light_project import LightProject

_WORDS = 150
Result = TypeVar("Result")


def main() -> None:
    """Measure, and print what was seen as JSON; each time is seconds by the clock and of CPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--documents", type=int, default=200, help="of each shard, of 150 words")
    options = parser.parse_args()
    from light_project import LightProject

    seen = {}

    def timed(name: str, work: Callable[[], Result]) -> Result:
        clock, cpu = time.perf_counter(), time.process_time()
        result = work()
        seen[name] = {"seconds": round(time.perf_counter() - clock, 2), "cpu_seconds": round(time.process_time() - cpu, 2)}
        return result

    with tempfile.TemporaryDirectory() as folder:
        light = LightProject(Path(folder), shards="a")
        vocabulary = sorted({word for text in light.texts for word in text.split()})
        for number in range(options.shards - 1):
            write(light, number, options.documents, vocabulary)
        timed("register_all", lambda: register(light.project, light.instance))
        assert timed("materialize_all", lambda: materialize_recipe(light.project, light.instance, "group:corpus", []))
        write(light, options.shards, options.documents, vocabulary)
        new = timed("register_one_more", lambda: register(light.project, light.instance))[-1]
        assert timed("materialize_one_more", lambda: materialize_recipe(light.project, light.instance, "group:corpus", [new]))
        plan = light.project.plan()
        due = timed("look_at_all", lambda: [key for key in plan.registered_shards if not plan.is_current("clean_corpus", key)])
        duplicates = plan.current("duplicate_documents").manifest.statistics
    print(json.dumps({**seen, "due": len(due), "num_documents": duplicates["num_documents"]}, indent=1))


def write(light: "LightProject", number: int, num_documents: int, vocabulary: list[str]) -> None:
    """Write a shard of documents of random words."""
    draw = random.Random(number)
    with (light.root / "notes" / f"many{number:05}.jsonl").open("w") as stream:
        for place in range(num_documents):
            print(json.dumps({"id": f"{number}-{place}", "text": " ".join(draw.choices(vocabulary, k=_WORDS))}), file=stream)


if __name__ == "__main__":
    main()
