import re
from dataclasses import replace

import numpy as np
import pytest

from pyseq.analysis.plots import attention_maps, balance_chart, outcome_chart, seed_chart
from pyseq.analysis.rules import Completion, RunRecord
from pyseq.analysis.rules.examination import Examination, balance, examine, outcome
from pyseq.analysis.rules.run_report import rules_report, run_lengths, write_rules_report
from pyseq.data.grammars import JointVocabulary, Prompts, find_grammar
from pyseq.models.rules import MODELS, build_rule_model
from tests.analysis.rules.lookup_model import LookupModel

SOS, EOS, PAD, A, B = range(5)
AB = find_grammar("aNbN")
PROMPTS = Prompts(["aab"], ["baa", "bab", "bbb"])


def history(shift):
    return [
        {
            "step": step,
            "train_loss": 1 / step,
            "validation_loss": 1.1 / step + shift,
            "grad_norm": 2.0,
            "lr": 1e-3,
            "ood_rule_1": 0.25 + shift,
            "ood_finished": 1.0,
        }
        for step in (10, 20, 30)
    ]


RECORD = RunRecord(
    grammar="aNbN",
    model="transformer",
    max_length=12,
    seeds=[4, 9],
    histories=[history(0.0), history(0.5)],
    stops=["patience", "max_steps"],
    config={"lr": 0.001},
    floor=0.0840,
    chance={"ood_rule_1": 0.154},
    eos_at_once={"ood_rule_1": 0.275},
    parameters=77,
    seconds=90.0,
    device="cpu",
)


def stack():
    """Seed 4 balances baa and runs on after bbb; seed 9 always stops at once."""
    endless = {(SOS, B, B, B, *[B] * n): B for n in range(12)}
    return LookupModel([{(SOS, A, A, B): B, (SOS, B, A, A): B, **endless}, {}])


def test_an_examination_completes_every_prompt_with_every_seed():
    found = examine(stack(), AB, PROMPTS, max_length=9, ensemble=False)
    assert found.in_distribution == [
        [Completion("aab", "b", True)],
        [Completion("aab", "", True)],
    ]
    told = [[outcome(AB, each) for each in seed] for seed in found.out_of_distribution]
    assert told == [["kept", "broken", "unfinished"], ["broken", "broken", "broken"]]
    assert found.out_of_distribution[0][2].text == "b" * 7
    assert found.ensemble is None
    assert found.attention == []  # the model has none to show


def test_the_ensemble_is_one_more_voice():
    found = examine(stack(), AB, PROMPTS, max_length=9)
    inside, outside = found.ensemble
    assert [each.prompt for each in (*inside, *outside)] == ["aab", "baa", "bab", "bbb"]
    alone = examine(LookupModel([{}]), AB, PROMPTS, max_length=9)
    assert alone.ensemble is None


@pytest.mark.parametrize("joint", [False, True])
def test_attention_is_shown_for_a_prompt_inside_and_one_of_each_outcome(joint):
    vocabulary = JointVocabulary([find_grammar("Dyck"), AB]) if joint else None
    classes = vocabulary.classes if joint else AB.classes
    config = MODELS["transformer"]()
    model = build_rule_model(config, classes=classes, max_length=12, seeds=[1, 2]).eval()
    found = examine(model, AB, PROMPTS, max_length=12, vocabulary=vocabulary)
    assert found.attention[0].completion == found.in_distribution[0][0]
    outside = {outcome(AB, each) for each in found.out_of_distribution[0]}
    assert [shown.outcome for shown in found.attention[1:]] == sorted(
        outside, key=["kept", "broken", "unfinished"].index
    )
    for shown in found.attention:
        length = len(shown.tokens)
        assert shown.tokens.startswith(("^#" if joint else "^") + shown.completion.prompt)
        assert shown.weights.shape == (7, 5, length, length)
        np.testing.assert_allclose(shown.weights.sum(-1), 1, atol=1e-5)
        assert np.triu(shown.weights, 1).max() == 0  # nobody looks ahead


def test_the_page_tells_every_prompt_and_its_outcome(tmp_path):
    found = examine(stack(), AB, PROMPTS, max_length=9)
    text = rules_report(RECORD, found)
    assert "OOD R1 is 0.500 ± 0.354 over 2 seeds at the best of each history" in text
    assert "reached (another length)" in text
    assert "Published: 0.657 ± 0.162 over 268 seeds" in text
    table = text[text.index("Completions, out of distribution") :]
    rows = dict(re.findall(r'<th class="text">([ab]{3})</th>(.*?)</tr>', table))
    assert re.findall(r">([✓✗…][^<]*)<", rows["baa"])[:2] == ["✓ b", "✗ "]
    assert re.findall(r">([✓✗…][^<]*)<", rows["bbb"])[:2] == ["… b7", "✗ "]
    assert "seeds averaged" in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    references = re.findall(r"""(?:href|src)="([^"]*)"|url\(([^)]*)\)""", text)
    assert all(name.startswith(("#", "data:")) for name in map("".join, references))
    write_rules_report(tmp_path / "report.html", RECORD, found)
    assert (tmp_path / "report.html").read_text() == text


def test_the_scores_of_these_weights_are_means_over_seeds():
    text = rules_report(RECORD, examine(stack(), AB, PROMPTS, max_length=9))
    text = text[text.index("The weights whose completions") :]
    row = re.search(r'<th class="text">OOD R1</th>(.*?)</tr>', text)[1]
    # Seed 4: 1 of 2 finished ones; seed 9: none of 3.
    assert "0.250 ± 0.354" in row
    row = re.search(r'<th class="text">OOD finished</th>(.*?)</tr>', text)[1]
    assert "0.833 ± 0.236" in row


def test_a_run_without_a_validation_or_weights_has_a_page_too():
    text = rules_report(replace(RECORD, histories=[[], []], stops=[]))
    assert "Nothing was validated yet." in text
    assert "<svg" not in text
    text = rules_report(replace(RECORD, seeds=[4], histories=[history(0)], stops=["running"]))
    assert "1 of 1 seeds unfinished, few seeds" in text
    assert "0.250 over 1 seed at" in text


# One whose prompts repeat, one without a first rule, brackets; the others are drawn like aNbN.
@pytest.mark.parametrize("name", ["bbaN", "aNbM", "parentheses_and_brackets"])
def test_grammars_of_other_kinds_have_pages(name):
    grammar = find_grammar(name)
    prompts = grammar.prompts()
    seeds = [[Completion(prompt, "", True) for prompt in prompts.out_of_distribution]] * 2
    inside = [[Completion(prompt, "", False) for prompt in prompts.in_distribution]] * 2
    text = rules_report(replace(RECORD, grammar=name), Examination(inside, seeds))
    assert all(f">{prompt}<" in text for prompt in prompts.out_of_distribution)


def test_balance_is_told_where_the_first_rule_asks_for_one():
    assert balance(AB, "aabab") == ("#a - #b", 1)
    assert balance(find_grammar("Dyck"), "([[]") == ("#[ - #]", 1)
    assert balance(find_grammar("baN"), "baa") is None


def test_runs_are_counted():
    assert run_lengths("aaabbab") == "a3 bbab"
    assert run_lengths("baaabbb") == "b a3 b3"
    assert run_lengths("") == ""
    assert run_lengths("ab" * 40) == "ab" * 24 + " …"


def test_a_chart_of_seeds_draws_each_and_their_mean():
    text = seed_chart([history(0), history(0.5)], "ood_rule_1", "OOD R1", share=True)
    assert "mean" in text
    assert text.count("stroke: var(--quiet)") == 2 + 1  # two curves and the legend's line
    assert seed_chart([[], []], "ood_rule_1", "OOD R1") == ""
    assert "mean" not in seed_chart([history(0)], "ood_rule_1", "OOD R1")
    assert seed_chart([[{"step": 1, "lr": 0.0}]], "lr", "lr", logarithmic=True) == ""


def test_logarithmic_axes_have_plain_figures():
    text = seed_chart([history(0)], "validation_loss", "loss", logarithmic=True)
    assert ">0.05<" in text
    assert "mathdefault" not in text


def test_pictures_without_anything_to_show_are_empty():
    assert outcome_chart([], [], []) == ""
    assert balance_chart([], "#a - #b") == ""
    assert attention_maps(np.zeros((0, 5, 3, 3)), "^ab", "none", prompt=1) == ""


def test_outcomes_are_drawn_once_for_each_prompt_and_seed():
    kinds = [["kept", "broken", "unfinished"], ["broken", "broken", "broken"]]
    text = outcome_chart(["baa", "bab", "bbb"], kinds, ["seed 4", "seed 9"])
    paths = dict(re.findall(r'd="([^"]*)"[^>]*style="fill: var\((--\w+)\)"', text))
    drawn = {}
    for path, colour in paths.items():
        drawn[colour] = max(drawn.get(colour, 0), path.count("M"))
    assert drawn == {"--main": 1, "--second": 4, "--quiet": 1}


def test_many_prompts_take_several_bands():
    prompts = AB.prompts().out_of_distribution
    text = outcome_chart(prompts, [["kept"] * len(prompts)], ["seed 1"])
    assert all(f">{prompt}<" in text for prompt in prompts)
    assert text.count(">seed 1<") == 4  # 251 prompts, 64 beside one another


def test_a_remark_begins_a_sentence_and_keeps_its_names():
    rows = [[dict(row, ood_finished=0.0) for row in rows] for rows in RECORD.histories]
    page = rules_report(replace(RECORD, histories=rows))
    assert "No OOD completion finished" in page


def test_a_loss_that_counts_what_the_training_ignores_says_so():
    said = "Both losses count PAD targets"
    assert said not in rules_report(RECORD)
    assert said in rules_report(replace(RECORD, config={"pad_targets": "ignore"}))
