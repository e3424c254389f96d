"""What a quality page was made from, for people: recipe, writer, shards, and what was left out on the way."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from instpt_assets.corpus.contamination import CONTAMINATED
from instpt_assets.store.making import Inputs
from instpt_assets.store.manifest import Spec

_SHOWN_DIGITS = 12


@dataclass(frozen=True)
class Source:
    """Where the measured texts come from. By default nothing is known of it, as of tables outside of a store."""

    asset: str = ""
    """`<pair set>/corpus_quality`."""
    identity: str = ""
    code_version: int = 0
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """The recipe part of the page itself."""
    writing: Sequence[Mapping[str, Any]] = ()
    """Recipe parts of the pairs, each once."""
    artifacts: Sequence[tuple[str, str, str]] = ()
    """Asset, partition and identity of each artifact."""
    dropped_pairs: Mapping[str, int] = field(default_factory=dict)
    """Valid pairs that stand in no text, by reason."""
    is_decontaminated: bool = False
    """Whether the pairs were compared with the evaluation examples."""
    contaminated_documents: tuple[int, int] | None = None
    """Documents that `clean_corpus` left out because they overlap an evaluation example, and all that it read; None where it did not look."""

    @classmethod
    def of(cls, spec: Spec, inputs: Inputs) -> "Source":
        """The source of a page of this spec."""
        dropped, writing, documents = Counter[str](), list[Mapping[str, Any]](), Counter[str]()
        is_decontaminated = False
        for (asset, _), artifact in sorted(inputs.items()):
            manifest = artifact.manifest
            if asset.endswith("/instruction_pairs") and manifest.recipe not in writing:
                writing.append(manifest.recipe)
            elif asset.endswith("/augmented_corpus"):
                dropped.update(manifest.statistics.get("dropped_pairs", {}))
                is_decontaminated |= any(item.asset == "evaluation_examples" for item in manifest.inputs)
            elif asset == "clean_corpus":
                documents["contaminated"] += manifest.statistics["removed_by_reason"].get(CONTAMINATED, 0)
                documents["read"] += manifest.statistics["num_read"]
        return cls(
            spec.asset,
            spec.identity,
            spec.code_version,
            spec.recipe,
            writing,
            [(asset, partition, artifact.manifest.identity) for (asset, partition), artifact in sorted(inputs.items())],
            dict(sorted(dropped.items())),
            is_decontaminated,
            (documents["contaminated"], documents["read"]) if documents else None,
        )

    @property
    def pair_set(self) -> str:
        """The pair set's name."""
        return self.asset.partition("/")[0]

    @property
    def writers(self) -> list[str]:
        """What wrote the pairs, in words; usually one."""
        return sorted({describe_writer(recipe) for recipe in self.writing})


def describe_writer(recipe: Mapping[str, Any]) -> str:
    """What wrote the pairs that were made with that part of a recipe."""
    writer = recipe.get("writer", {})
    model = str(writer.get("model") or "")
    if model.startswith("sha256:"):
        model = model[: len("sha256:") + _SHOWN_DIGITS]
    match writer.get("kind", "synthesizer"):
        case "synthesizer":
            return f"the synthesizer {model}" if model else "the synthesizer that the recipe tunes"
        case "chat":
            return f"the chat model {model}"
        case "server":
            return f"{model}, behind servers"
        case "imported":
            return "whoever made the corpus, which brought them with it"
        case "rule_based":
            return "rules, without any model"
        case kind:
            return str(kind)
