"""Corpus quality: the figures, the samples' uniformity, and a page that shows texts as text and stays readable at any size."""

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from instpt_assets.augmentation.augment import augment
from instpt_assets.augmentation.coverage import CoveredPassage, measure_coverage
from instpt_assets.augmentation.judging import JUDGED, Judgement, Question, Verdict
from instpt_assets.augmentation.layouts import Pair
from instpt_assets.augmentation.quality import measure_quality
from instpt_assets.augmentation.quality_counts import distinct, expected_layouts, openings
from instpt_assets.augmentation.quality_examples import SampledPassage, SampledText, example
from instpt_assets.augmentation.quality_source import Source, describe_writer
from instpt_assets.defs.previews import PLOT_BYTES
from instpt_assets.evaluation.statistics import wilson_interval
from instpt_assets.recipe.quality import CorpusQuality
from instpt_assets.recipe.synthesis import Layouts
from instpt_assets.store.manifest import Input, Spec
from instpt_assets.store.store import Store, resolve

PAIRS = pl.List(pl.Struct({"instruction": pl.String, "response": pl.String, "options": pl.List(pl.String), "reasoning": pl.String}))
LOOP = "and so on " * 6
Tables = dict[str, list[Path]]


def pair(instruction: str, response: str, reasoning: str | None = None) -> dict[str, Any]:
    return {"instruction": instruction, "response": response, "options": [], "reasoning": reasoning}


def write_shard(folder: Path, name: str, passages: list[tuple[str, list[dict[str, Any]]]]) -> tuple[Path, Path]:
    """A shard of these passages with their pairs, each a document and a chain of its own, and one passage that was not chosen."""
    rows: list[dict[str, Any]] = [
        {
            "passage_id": f"{name}-{n}/0", "document_id": f"{name}-{n}", "chain_id": f"{name}{n}", "shot": 0, "text": text,
            "status": "ok" if pairs else "no_valid_pair", "pairs": pairs, "num_rejected_pairs": 1, "num_completion_tokens": 30,
        }
        for n, (text, pairs) in enumerate(passages)
    ]  # fmt: skip
    left_out = {"passage_id": f"{name}-x/0", "document_id": f"{name}-x", "text": "Elsewhere.", "status": "not_selected", "pairs": []}
    rows.append({**dict.fromkeys(("chain_id", "shot")), **left_out, "num_rejected_pairs": 0, "num_completion_tokens": None})
    out = folder / name
    out.mkdir()
    schema: dict[str, Any] = {"chain_id": pl.String, "shot": pl.Int64, "pairs": PAIRS, "num_completion_tokens": pl.Int64}
    pl.DataFrame(rows, schema_overrides=schema).write_parquet(out / "pairs.parquet")
    ids = [row["document_id"] for row in rows]
    metadata = json.dumps({"license": "MIT", "title": "On <i>ships</i>", "source": "Harbour", "pairs": [1]})
    pl.DataFrame({"document_id": ids, "metadata": [metadata] * len(ids)}).write_parquet(out / "clean.parquet")
    augment([out / "pairs.parquet"], [out / "clean.parquet"], Layouts(), pair_set="synthesized", out=out)
    return out / "pairs.parquet", out / "data-00000.parquet"


def ships(name: str, num: int) -> list[tuple[str, list[dict[str, Any]]]]:
    """Passages of which each fourth has no pair; of a passage's two pairs one is grounded, one merely repeats itself."""
    return [
        (
            f"The colour of ship {name}{n} is deep <b>green</b>. <script>alert(1)</script> It sails.\n",
            [pair(f"What is the colour of ship {name}{n}?", "deep <b>green</b>"), pair("Is this asked everywhere?", LOOP, "because")]
            if n % 4
            else [],
        )
        for n in range(num)
    ]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tables, Tables]:
    folder = tmp_path_factory.mktemp("shards")
    made = {name: write_shard(folder, name, ships(name, num)) for name, num in (("a", 40), ("b", 24))}
    return {name: [pairs] for name, (pairs, _) in made.items()}, {name: [texts] for name, (_, texts) in made.items()}


def measure(tables: tuple[Tables, Tables], out: Path, **quality: Any) -> dict[str, Any]:
    out.mkdir()
    return measure_quality(*tables, quality=CorpusQuality(**quality), layouts=Layouts(), out=out)


def test_measures_are_what_was_put_in(tmp_path: Path, shards: tuple[Tables, Tables]) -> None:
    out = tmp_path / "out"
    statistics = measure(shards, out)
    table = pl.read_parquet(out / "data-00000.parquet")
    assert table.columns == ["metric", "value", "num_examples", "low", "high"]
    value = dict(zip(table["metric"], table["value"], strict=True))
    assert value["passages"] == value["texts"] == 64
    assert value["pairs"] == 96
    assert value["passages_with_valid_pair"] == 0.75
    assert value["pairs_per_passage"] == 1.5
    assert value["completion_tokens_per_pair"] == 20
    assert value["rejected"] == 64 / 160
    assert value["dropped"] == value["pairs_with_options"] == 0
    assert value["pairs_with_reasoning"] == 0.5
    assert value["duplicate_instructions"] == pytest.approx(47 / 96)
    assert value["degenerate"] == 0.5
    assert value["supported"] == value["grounded"] == 0.5
    assert table.filter(metric="borne_out").select("value", "num_examples").row(0) == (1, 48)  # "and so on" has no content words
    assert value["relevant"] == 0.5  # "asked everywhere" is about no ship, and every ship has another name
    assert table.filter(metric="supported").select("low", "high").row(0) == pytest.approx((0.4019, 0.5981), abs=1e-4)
    assert value["growth"] > 1.5
    assert statistics["num_rows"] == table.height
    assert statistics["metrics"]["pairs"] == statistics["num_pairs"] == sum(statistics["scenarios"].values()) == 96
    assert sum(statistics["layouts"].values()) == statistics["num_texts"] == 64
    assert statistics["layouts"]["raw"] == 16
    assert sum(statistics["categories"].values()) == 96


class Balance(HTMLParser):
    """Fails where a tag is closed that is not open."""

    VOID = frozenset({"meta", "br", "hr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_pages_show_ten_texts_escaped_and_need_no_network(tmp_path: Path, shards: tuple[Tables, Tables]) -> None:
    pages = []
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        measure(shards, tmp_path / name, seed=seed)
        pages.append(tuple((tmp_path / name / file).read_bytes() for file in ("quality.html", "quality.md", "quality.png")))
    html, markdown = pages[0][0].decode(), pages[0][1].decode()
    assert pages[1] == pages[0]
    assert pages[2] != pages[0]
    Balance(html)
    assert html.count('<section class="box example">') == 10
    assert "<script" not in html + markdown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<b>green" not in html + markdown
    assert "On &lt;i&gt;ships&lt;/i&gt; \u00b7 Harbour \u00b7 licence: MIT" in html
    assert not re.search(r"https?:|src=|@import|url\(", html)
    assert "licences of the passages of the 48 sampled texts: MIT 48" in html
    assert str(tmp_path) not in html + markdown
    assert markdown.count(": raw text | added |") == 5
    assert len(pages[0][2]) <= PLOT_BYTES


def test_bars_before_a_track_are_drawn_on_a_scale_of_the_whole(tmp_path: Path) -> None:
    passages = [("Aspirin inhibits cyclooxygenase and thromboxane in platelets.", [pair("What does aspirin inhibit?", "cyclooxygenase")])]
    pairs, texts = write_shard(tmp_path, "a", passages * 4)
    measure(({"a": [pairs]}, {"a": [texts]}), tmp_path / "out")
    html = (tmp_path / "out" / "quality.html").read_text()
    drawn: dict[str, tuple[bool, list[tuple[float, float]]]] = {}
    for section in html.split('<section class="box chart">')[1:]:
        title, bars = section.partition("<h3>")[2].partition("</h3>")[0], section.partition("</section>")[0]
        found = re.findall(r'class="track"><i style="width:([\d.]+)%.*?"value">([\d.]+) %', bars)
        drawn[title] = 'class="bars whole"' in bars, [(float(width), float(share)) for width, share in found]
    assert {title for title, (before_a_track, _) in drawn.items() if before_a_track} == {"Coverage by corpus"}
    ((width, share),) = drawn["Coverage by corpus"][1]
    assert width == share < 100
    assert max(width for width, _ in drawn["Task categories"][1]) == 100
    assert ".whole .track { background" in html and "background" not in re.findall(r"^\.track {.*", html, re.MULTILINE)[0]


def test_a_page_of_nothing_of_many_shards_and_of_very_long_texts_stays_short(tmp_path: Path) -> None:
    empty = write_shard(tmp_path, "none--0", [("No pair is about this.", [])])
    measure(({"none--0": [empty[0]]}, {"none--0": [empty[1]]}), tmp_path / "nothing")
    html = (tmp_path / "nothing" / "quality.html").read_text()
    Balance(html)
    assert "No text has a pair" in html and "nan" not in html.lower()
    assert pl.read_parquet(tmp_path / "nothing" / "data-00000.parquet").filter(metric="supported")["value"].to_list() == [None]
    assert pl.read_parquet(tmp_path / "nothing" / "data-00000.parquet").filter(metric="passages_with_valid_pair")["value"].to_list() == [
        0.0
    ]

    long = write_shard(tmp_path, "long", [("A ship sails on. " * 3000, [pair("Who sails?", "A ship. " * 3000)])] * 12)
    names = [f"corpus{n % 30}--{n}" for n in range(90)]
    measure(({name: [long[0]] for name in names[:2]}, {name: [long[1]] for name in names[:2]}), tmp_path / "long_texts")
    measure(({name: [empty[0]] for name in names}, {name: [empty[1]] for name in names}), tmp_path / "many")
    for folder in ("long_texts", "many"):
        html, markdown = ((tmp_path / folder / f"quality.{end}").read_text() for end in ("html", "md"))
        Balance(html)
        assert len(html) < 500_000 and len(markdown) < 40_000, folder
    assert "The 40 of 90 with the lowest share" in html and "The 20 largest of 30 corpora" in html


def test_the_judge_is_asked_about_pairs_that_stand_in_texts_alone(tmp_path: Path) -> None:
    lost = {**pair("Which of the two is it?", "blue"), "options": ["one", "two"]}
    tables = write_shard(tmp_path, "a", [("Ships are green.\n", [pair("What colour?", "green"), lost])])
    asked: list[Question] = []

    def judge(questions: Sequence[Question]) -> Judgement:
        asked.extend(questions)
        return Judgement(questions, [Verdict(JUDGED, True, True)] * len(questions))

    found = measure_quality(*({"a": [path]} for path in tables), quality=CorpusQuality(), layouts=Layouts(), out=tmp_path, judge=judge)
    assert [question.pair.instruction for question in asked] == ["What colour?"]
    assert found["num_pairs"] == 2 and found["num_judged"]["judged"] == 1 and found["metrics"]["dropped"] == 0.5


def test_texts_of_other_pairs_are_refused(tmp_path: Path, shards: tuple[Tables, Tables]) -> None:
    pairs, texts = shards
    rows = pl.read_parquet(texts["a"][0])
    for name, changed in (
        ("changed", rows.with_columns(text=pl.lit("something else"))),
        ("shorter", rows[:-1]),
        ("reversed", rows.reverse()),
    ):
        changed.write_parquet(tmp_path / f"{name}.parquet")
        with pytest.raises(ValueError, match="do not belong together"):
            measure((pairs, {"a": [tmp_path / f"{name}.parquet"]}), tmp_path / name)


def test_what_was_added_is_shown_beside_the_passage_that_it_is_about() -> None:
    passages = [SampledPassage(f"p/{name}", f"Passage {name} of a text.\n", [Pair("q", "a")]) for name in "ab"]
    text = "Read: Passage a of a text. Q1 A1 Read: Passage b of a text. Q2 A2"
    rows = {}
    for layout in ("classic", "classic_pairs_first"):
        sampled = SampledText("t", layout, 2, text, passages, ["MIT", "MIT"], ['{"title": "On ships"}', None])
        shown = example(sampled, raw_characters=100, passage_characters=16, added_characters=100)
        rows[layout] = [(row.before, row.behind) for row in shown.rows]
        assert [row.raw for row in shown.rows] == ["Passage a of a text.", "Passage b of a text."]
        assert [row.passage for row in shown.rows] == ["Passage a […] ext.", "Passage b […] ext."]
        assert shown.attributions == ["On ships \u00b7 licence: MIT", "licence: MIT"]
    assert rows["classic"] == [("Read: ", " Q1 A1"), ("Read: ", " Q2 A2")]
    assert rows["classic_pairs_first"] == [("Read: ", ""), (" Q1 A1 Read: ", " Q2 A2")]


def test_coverage_counts_terms_where_the_passages_own_pairs_use_them() -> None:
    about = [Pair("What does aspirin inhibit?", "cyclooxygenase")]
    medical = [
        CoveredPassage("Aspirin and heparin were given in the report.", about),
        CoveredPassage("Aspirin, heparin only; cyclooxygenase.", []),
    ] * 3
    other = [CoveredPassage("The bank and heparin.", [Pair("Which bank?", "Aspirin")])] * 6
    found = measure_coverage({"medical": medical, "other": other})
    own = found["medical"]
    assert [(term.word, term.num_passages, term.num_asked) for term in own.terms] == [("aspirin", 6, 3), ("cyclooxygenase", 3, 0)]
    assert own.domain == 0.5 and own.domain_by_passage == pytest.approx(3 / 9)
    assert own.num_new_words == 1  # "inhibit": "cyclooxygenase" stands in another passage of the corpus
    assert {term.word for term in found["other"].terms} == {"bank"}  # "heparin" is as frequent elsewhere
    assert found["other"].num_new_words == 1  # "aspirin"


def test_expected_layouts_know_which_texts_can_have_which() -> None:
    layouts = Layouts()
    paper = {"classic": 0.76, "classic_pairs_first": 0.04, "dialog": 0.0475, "dialog_pairs_first": 0.0025}
    assert expected_layouts(layouts, 1000, 0) == pytest.approx(
        {name: 1000 * share for name, share in (paper | dict.fromkeys(("numbered", "inline_few_shot", "next_turn_dialog"), 0.05)).items()}
    )
    few = expected_layouts(layouts, 0, 1000)
    assert (
        few["numbered"] == 0 and sum(few.values()) == pytest.approx(1000) and few["dialog"] + few["dialog_pairs_first"] == pytest.approx(50)
    )


def test_statistics_of_the_sample() -> None:
    assert wilson_interval(0, 0) is None
    assert wilson_interval(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1), abs=1e-4)
    assert distinct(["What is a ship", "what IS a boat"], 2) == (4, 6)
    assert openings(["What is it?", "what  is that?", "Why?"]) == {"what is": 2, "why?": 1}


def test_the_source_adds_up_what_was_left_out_on_the_way(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))

    def commit(asset: str, shard: str, recipe: dict[str, Any], statistics: dict[str, Any], inputs: tuple[Input, ...] = ()) -> Input:
        spec = Spec(asset=asset, partition=shard, code_version=1, recipe=recipe, inputs=inputs)
        with store.write(spec) as draft:
            (draft.folder / "data").write_text(shard)
            draft.statistics |= statistics
        artifact = store.find(spec)
        assert artifact is not None
        return artifact.manifest.as_input()

    inputs, index = list[Input](), commit("evaluation_examples", "all", {}, {})
    for shard, contaminated in (("a--0", 2), ("a--1", 0)):
        inputs.append(
            commit("clean_corpus", shard, {}, {"num_read": 50, "removed_by_reason": {"contaminated": contaminated, "too_short": 7}})
        )
        inputs.append(commit("one/instruction_pairs", shard, {"writer": {"kind": "imported"}}, {}))
        dropped = {"contaminated": contaminated, "answer_is_no_option": 1}
        inputs.append(commit("one/augmented_corpus", shard, {}, {"dropped_pairs": dropped}, (index,)))
    spec = Spec(asset="one/corpus_quality", partition="all", code_version=4, recipe={}, inputs=tuple(inputs))
    source = Source.of(spec, resolve(store, inputs))
    assert source.dropped_pairs == {"answer_is_no_option": 2, "contaminated": 2} and source.is_decontaminated
    assert source.contaminated_documents == (2, 100)
    assert (source.pair_set, source.identity, len(source.writing), len(source.artifacts)) == ("one", spec.identity, 1, 6)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"shots": 2}, "the synthesizer that the recipe tunes"),
        ({"writer": {"kind": "chat", "model": "sha256:" + "a" * 64}}, "the chat model sha256:aaaaaaaaaaaa"),
        ({"writer": {"kind": "rule_based"}}, "rules, without any model"),
    ],
)
def test_the_page_says_what_wrote_the_pairs(recipe: dict[str, Any], words: str) -> None:
    assert describe_writer(recipe) == words
    assert Source(writing=[recipe, recipe]).writers == [words]
