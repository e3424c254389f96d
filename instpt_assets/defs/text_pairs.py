"""`make pairs`: instruction-response pairs for the text on standard input, one JSON line each."""

import argparse
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence

from instpt_assets.corpus.normalizing import normalize
from instpt_assets.defs.chains_worker import write_in_worker
from instpt_assets.defs.output import end_without_reader
from instpt_assets.defs.pair_writer import PairWriter, chosen_pair_set, is_rule_based, written_pair_sets
from instpt_assets.defs.project import Project
from instpt_assets.defs.supervised import read_chunks
from instpt_assets.errors import UserError
from instpt_assets.recipe.recipe import Recipe
from instpt_assets.recipe.synthesis import PairSet
from instpt_assets.synthesis.chain_run import Shot
from instpt_assets.synthesis.chains import cut_documents, generation_context, plan_chains
from instpt_assets.synthesis.progress import writer_digest
from instpt_assets.synthesis.prompt import Pair
from instpt_assets.synthesis.rule_based import mine_text
from instpt_assets.synthesis.writers import passage_limit

DOCUMENT = "text"


class NoText(UserError):
    """Standard input holds nothing that pairs could be written for."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write pairs for standard input to standard output."""
    parser = argparse.ArgumentParser(
        description="Writes instruction-response pairs for the text on standard input: one JSON line a pair (instruction, response, options, "
        "reasoning, passage) on standard output, everything else on standard error. The text is cut into passages and chained as documents are."
    )
    parser.add_argument(
        "--pair-set",
        help="the pair set whose writer is asked; by default the recipe's only one that a model writes, else its only rule-based one",
    )
    options = parser.parse_args(arguments)
    try:
        project = Project.from_environment()
        rules = rule_based_pair_set(project.recipe, options.pair_set)
        if rules is not None:
            complete = mine_pairs_of(project.recipe.pair_sets[rules], rules, read_text(), print_line)
        else:
            complete = write_pairs_of(project, chosen_pair_set(project.recipe, options.pair_set), read_text(), print_line)
    except (UserError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        end_without_reader()
    sys.exit(0 if complete else 1)


def read_text() -> str:
    """The text on standard input, normalised as documents are.

    Raises:
        NoText: it is empty, or no UTF-8.
    """
    if sys.stdin.isatty():
        print("reading the text from the terminal; end it with Ctrl-D", file=sys.stderr)
    data = b"".join(read_chunks(sys.stdin.fileno()))
    try:
        text = normalize(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise NoText(f"standard input is no UTF-8 text (byte {error.start}): convert it, e.g. with iconv") from error
    if not text:
        raise NoText("standard input holds no text: make pairs < text.txt")
    return text


def print_line(line: str) -> None:
    """Print a line at once, as UTF-8 whatever the locale is."""
    sys.stdout.buffer.write(line.encode() + b"\n")
    sys.stdout.buffer.flush()


def rule_based_pair_set(recipe: Recipe, name: str | None) -> str | None:
    """The rule-based pair set that is meant, if one is: the named one, or the only one of a recipe for which no model writes pairs."""
    found = [key for key in recipe.pair_sets if is_rule_based(recipe, key) and name in (None, key)]
    return found[0] if len(found) == 1 and (name is not None or not written_pair_sets(recipe)) else None


def mine_pairs_of(pair_set: PairSet, name: str, text: str, tell: Callable[[str], None]) -> bool:
    """Tell each pair that rules find in one text as a line of JSON; returns True: every passage was looked at."""
    num_passages = num_pairs = num_without = 0
    for passage, mined in mine_text(text, pair_set):
        num_passages += 1
        num_pairs += len(mined.pairs)
        num_without += not mined.pairs
        for pair in mined.pairs:
            tell(_line(pair, passage.text))
    print(f"pair set '{name}': passages: {num_passages}; pairs: {num_pairs}; passages without a pair: {num_without}", file=sys.stderr)
    return True


def write_pairs_of(project: Project, pair_set: str, text: str, tell: Callable[[str], None]) -> bool:
    """Write the pairs of one text, in its order, and tell each as a line of JSON; chains that are finished early wait for their turn.

    Returns:
        Whether every passage has a completion.

    Raises:
        UserError: the writer is missing, or failed.
        ValueError: the pair set leaves no room for passages.
    """
    writer = PairWriter.find(project, pair_set)
    spec, limit = writer.of_text(), passage_limit(writer.pair_set, writer.format)
    passages = cut_documents([(DOCUMENT, text)], count_tokens=writer.format.count, max_tokens=limit, fraction=1.0)
    context = generation_context(spec.recipe, writer_digest(spec.inputs))
    chains = list(plan_chains(passages, shots=writer.pair_set.shots, context=context))
    done = dict[str, Sequence[Shot]]()
    behind = iter(chains)
    waiting = next(behind, None)
    status = Counter[str]()
    num_pairs = 0

    def finished(chain_id: str, shots: Sequence[Shot]) -> None:
        nonlocal waiting, num_pairs
        done[chain_id] = shots
        while waiting is not None and waiting.chain_id in done:
            for passage, shot in zip(waiting.passages, done.pop(waiting.chain_id), strict=True):
                status[shot.status] += 1
                for pair in shot.pairs:
                    num_pairs += 1
                    tell(_line(pair, passage.text))
            waiting = next(behind, None)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    num_passages = sum(len(chain.passages) for chain in chains)
    say(f"pair set '{pair_set}': passages: {num_passages}, chains: {len(chains)}")
    statistics = write_in_worker(
        project, [spec], [(spec.partition, chain) for chain in chains], keep=False, finished=finished, progress=say
    )
    say(f"pairs: {num_pairs}; passages without a valid pair: {status['no_valid_pair']} of {num_passages}")
    for reason, number in statistics.get("engine_errors", {}).items():
        say(f"passages without a completion: {number}: {reason}")
    return not status["engine_error"]


def _line(pair: Pair, passage: str) -> str:
    return json.dumps({**pair.to_struct(), "passage": passage}, ensure_ascii=False)


if __name__ == "__main__":
    main()
