"""Rows to contexts and answers: LCQMC's templates token by token, options, truncation, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import encoder_of, small_config, vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st

from cpm_tune.backbone.ant.tokenizer import SPECIALS, Tokenizer
from cpm_tune.backbone.example import Answer, Example
from cpm_tune.data.encode import Encoder
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Encoding
from cpm_tune.task import Choice, Row, Template
from cpm_tune.task.registry import load_task

LCQMC = load_task("lcqmc")
CPM_ANT, CPM_2 = LCQMC.templates[0], LCQMC.earlier_templates[0]  # of one text
ONE = Template("one", "{sentence1}对{sentence2}吗？{answer}", ("是", "否", "无"))
MIXED = Template("mixed", "{sentence2}，{sentence1}：{answer}", ("是", "不是", "说不好"))
JOINED = Template("joined", "{sentence1}天气{option}天", ("今", "气"))
TEMPLATES = {t.name: t for t in (CPM_ANT, CPM_2, ONE, MIXED, JOINED)}

CHARACTERS = Tokenizer(vocabulary())
WORDS = Tokenizer(
    dict.fromkeys(
        [
            *(*SPECIALS, "</_>", "</n>", "今天", "天气", "今天天气", "不错", "北京", "北京大学"),
            *"今天气不错北京大学和的意思与“”关系是：，？对吗[否正确]矛盾相似同无说好",
        ]
    )
)
PROMPT = 4


def make_encoder(template: Template, tokenizer: Tokenizer = CHARACTERS, **encoding: int) -> Encoder:
    task = replace(LCQMC, templates=(template,), answer=Choice(tuple(range(len(template.options)))))
    config = small_config(vocab_size=len(tokenizer))
    return encoder_of(task, template, Encoding(**encoding), config, tokenizer)


def row(sentence1: str, sentence2: str, target: int = 1) -> Row:
    return {"id": "7", "sentence1": sentence1, "sentence2": sentence2, "target": target}


def sequences(example: Example, encoder: Encoder) -> list[str]:
    """The text of CPM-Ant's sequences, with `<s>`, in the order of contexts and candidates."""
    return ["".join(s.tokens) for s in encoder.layout.describe(example)]


def entries(text: str) -> tuple[int, ...]:
    """Ids in the tests' vocabulary, where every character is one entry."""
    return tuple(CHARACTERS.ids[character] for character in text)


# --- token by token ---


@pytest.mark.parametrize("prompt_type", [0, 2, 3])
def test_an_option_is_written_into_the_prompt_and_the_last_token_answers_yes(
    prompt_type: int,
) -> None:
    encoder = make_encoder(CPM_ANT, prompt_type=prompt_type)
    example = encoder.encode(row("猫 怎么养", "如何养猫?"))
    first = len(CHARACTERS) + prompt_type * PROMPT
    head = (first, first + 1, first + 2, first + 3, CHARACTERS.ids["<s>"])
    texts = [f"猫 怎么养和如何养猫?的意思{option}[是否正确]" for option in ("不同", "相同")]
    whole = tuple(head + entries(text) for text in texts)
    assert example.contexts == whole
    yes = CHARACTERS.ids["是"]
    assert example.candidates == (Answer(0, (yes,)), Answer(1, (yes,)))
    assert (example.id, example.gold, example.truncated) == ("7", 1, False)
    batch = encoder.layout.collate([example])
    lengths = [len(whole[0]), len(whole[1])]
    assert batch.context[0, : sum(lengths)].all()
    assert batch.target_index.tolist() == [lengths[0] - 1, sum(lengths) - 1]
    assert batch.target_token.tolist() == [yes, yes]
    assert encoder.layout.n_tokens(example) == sum(lengths)


def test_a_verbaliser_predicts_each_token_of_an_option_from_the_token_before_it() -> None:
    encoder = make_encoder(CPM_2)
    example = encoder.encode(row("猫怎么养", "如何养猫", target=0))
    first = len(CHARACTERS) + 2 * PROMPT
    head = (first, first + 1, first + 2, first + 3, CHARACTERS.ids["<s>"])
    before = head + entries("“猫怎么养”与“如何养猫”的意思")
    one, two, three, four = entries("矛盾相似")
    assert example.contexts == (before,)
    assert example.candidates == (Answer(0, (one, two)), Answer(0, (three, four)))
    assert example.gold == 0
    batch, n = encoder.layout.collate([example]), len(before)
    assert batch.ids[0, : 2 * n + 2].tolist() == [*before, one, *before, three]
    assert batch.context[0, : 2 * n + 2].tolist() == ([True] * n + [False]) * 2
    assert batch.target_index.tolist() == [n - 1, n, 2 * n, 2 * n + 1]
    assert batch.target_token.tolist() == [one, two, three, four]
    assert batch.target_candidate.tolist() == [0, 0, 1, 1]


def test_options_of_one_token_share_one_sequence() -> None:
    encoder = make_encoder(ONE)
    example = encoder.encode(row("猫", "狗", target=2))
    (context,) = example.contexts
    assert context[PROMPT + 1 :] == entries("猫对狗吗？")
    assert example.candidates == tuple(Answer(0, (token,)) for token in entries("是否无"))
    assert example.gold == 2
    batch = encoder.layout.collate([example])
    assert batch.ids[0, : len(context)].tolist() == list(context)
    assert batch.context[0, : len(context)].all()
    assert batch.target_index.tolist() == [len(context) - 1] * 3


def test_one_longer_option_gives_every_option_its_own_sequence() -> None:
    encoder = make_encoder(MIXED)
    example = encoder.encode(row("猫", "狗"))
    (context,) = example.contexts
    assert context[PROMPT + 1 :] == entries("狗，猫：")
    assert example.candidates == tuple(Answer(0, entries(o)) for o in ("是", "不是", "说不好"))
    assert sequences(example, encoder) == ["<s>狗，猫：", "<s>狗，猫：不", "<s>狗，猫：说不"]
    shown = encoder.layout.describe(example)
    last = len(context) - 1
    assert [s.scored for s in shown] == [
        tuple((last + i, token) for i, token in enumerate(option))
        for option in ("是", "不是", "说不好")
    ]


def test_text_before_the_option_is_cut_as_one_string_and_option_and_tail_on_their_own() -> None:
    example = make_encoder(JOINED, WORDS).encode(row("今天", ""))
    texts = [[WORDS.entries[i] for i in context[PROMPT + 1 :]] for context in example.contexts]
    assert texts == [["今天天气", "今", "天"], ["今天天气", "气", "天"]]


@pytest.mark.parametrize("template", [CPM_2, ONE, MIXED], ids=lambda t: t.name)
def test_training_a_verbaliser_keeps_the_gold_option_alone(template: Template) -> None:
    encoder = make_encoder(template)
    for gold in range(len(template.options)):
        whole = encoder.encode(row("猫怎么养", "狗", gold))
        kept = encoder.encode(row("猫怎么养", "狗", gold), train=True)
        assert kept.contexts == whole.contexts
        assert len(kept.contexts) == 1
        assert kept.candidates == (whole.candidates[gold],)
        assert kept.gold == 0


def test_training_by_option_keeps_every_option() -> None:
    encoder = make_encoder(CPM_ANT)
    assert encoder.encode(row("猫", "狗"), train=True) == encoder.encode(row("猫", "狗"))


def test_the_description_shows_tokens_and_scored_positions() -> None:
    encoder = make_encoder(CPM_2)
    first, second = encoder.layout.describe(encoder.encode(row("猫", "狗")))
    assert "".join(first.tokens) == "<s>“猫”与“狗”的意思矛"
    assert second.scored == ((second.length - 2, "相"), (second.length - 1, "似"))


# --- truncation ---


def written(template: Template, tokenizer: Tokenizer, fields: Row, cap: int | None) -> list:
    """Contexts as the template says, with every field cut to `cap` characters; and their need,
    with the longest answer."""
    before, _, tail = template.text.replace("{option}", "{answer}").partition("{answer}")
    start = len(tokenizer) + 2 * PROMPT
    head = [*range(start, start + PROMPT), tokenizer.ids["<s>"]]
    cut = {name: fields[name][:cap] for name in ("sentence1", "sentence2")}
    head += tokenizer.encode(before.format(**cut))
    options = [tokenizer.encode(option) for option in template.options]
    need = len(head) + max(map(len, options)) + len(tokenizer.encode(tail))
    if "{option}" in template.text:
        return [[head + option + tokenizer.encode(tail) for option in options], need]
    return [[head], need]


SENTENCES = st.text("今天气不错北京大学，囍 ", max_size=50)


@pytest.mark.parametrize("tokenizer", [CHARACTERS, WORDS], ids=["characters", "words"])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@settings(deadline=None, max_examples=60)
@given(first=SENTENCES, second=SENTENCES, spare=st.integers(0, 60))
def test_a_row_is_cut_only_when_too_long_and_then_as_little_as_possible(
    template: Template, tokenizer: Tokenizer, first: str, second: str, spare: int
) -> None:
    fields = row(first, second)
    limit = written(template, tokenizer, fields, 0)[1] + spare
    encoder = make_encoder(template, tokenizer, max_length=limit)
    example = encoder.encode(fields)
    got = [list(context) for context in example.contexts]
    assert max(s.length for s in encoder.layout.describe(example)) <= limit
    if not encoder.template.scores_in_prompt:
        assert [list(answer.ids) for answer in example.candidates] == [
            tokenizer.encode(option) for option in template.options
        ]
    whole, need = written(template, tokenizer, fields, None)
    assert example.truncated == (need > limit)
    if not example.truncated:
        assert got == whole
        return
    caps = [
        cap
        for cap in range(max(len(first), len(second)))
        if written(template, tokenizer, fields, cap)[0] == got
    ]
    needs = {cap: written(template, tokenizer, fields, cap + 1)[1] for cap in caps}
    assert any(need > limit for need in needs.values())  # one character more would not fit


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@settings(deadline=None, max_examples=60)
@given(first=SENTENCES, second=SENTENCES, spare=st.integers(0, 20))
def test_training_cuts_exactly_as_inference_does(
    template: Template, first: str, second: str, spare: int
) -> None:
    fields = row(first, second)
    limit = written(template, CHARACTERS, fields, 0)[1] + spare
    encoder = make_encoder(template, max_length=limit)
    whole, kept = encoder.encode(fields), encoder.encode(fields, train=True)
    assert kept.truncated == whole.truncated
    assert kept.contexts == whole.contexts
    gold = (whole.candidates[fields["target"]],)
    assert kept.candidates == (whole.candidates if encoder.template.scores_in_prompt else gold)


@pytest.mark.parametrize(
    ("lengths", "room", "left"),
    [
        ((3, 40), 20, (3, 17)),  # the short field is not touched
        ((40, 3), 20, (17, 3)),
        ((40, 30), 30, (15, 15)),  # the longest pays until it is no longer the longest
        ((40, 30), 68, (38, 30)),
        ((40, 30), 70, (40, 30)),
        ((40, 30), 0, (0, 0)),
    ],
)
def test_the_longest_field_is_shortened_first_and_from_its_end(
    lengths: tuple[int, int], room: int, left: tuple[int, int]
) -> None:
    characters = "一二三四五六七八九十" * 4
    fields = row(characters[: lengths[0]], characters[: lengths[1]])
    words = len("和的意思不同[是否正确]")
    example = make_encoder(CPM_ANT, max_length=PROMPT + 1 + words + room).encode(fields)
    text = CHARACTERS.decode(example.contexts[1][PROMPT + 1 :])
    first, second = characters[: left[0]], characters[: left[1]]
    assert text == f"{first}和{second}的意思相同[是否正确]"
    assert example.truncated == (left != lengths)


# --- refusals ---


@pytest.mark.parametrize("setting", ["prompt_type", "segment"])
def test_a_prompt_type_or_segment_that_the_backbone_lacks_is_refused(setting: str) -> None:
    make_encoder(CPM_ANT, **{setting: 3})
    with pytest.raises(UserError, match=rf"encode\.{setting} is 4.*choose 0 to 3"):
        make_encoder(CPM_ANT, **{setting: 4})


@pytest.mark.parametrize("options", [("是", "囍"), ("囍", "龘"), ("是", "是囍")])
@pytest.mark.parametrize("text", ["{sentence1}{option}", "{sentence1}{answer}"])
def test_an_option_outside_the_vocabulary_is_named(text: str, options: tuple[str, str]) -> None:
    unknown = next(option for option in options if set(option) & set("囍龘"))
    with pytest.raises(UserError, match=f"option '{unknown}' .*cannot be written"):
        make_encoder(Template("rare", text, options))


def test_an_empty_option_is_refused() -> None:
    with pytest.raises(UserError, match=r"option '' .*cannot be written"):
        make_encoder(Template("empty", "{sentence1}{answer}", ("是", "")))


@pytest.mark.parametrize(
    ("yes", "said"), [("正确", "'正确' is not a single entry"), ("囍", "answer word '囍'")]
)
def test_an_answer_word_that_is_not_one_entry_is_named(yes: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_encoder(replace(CPM_ANT, yes=yes))


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_max_length_below_the_template_itself_is_refused_with_what_it_needs(
    template: Template,
) -> None:
    fields = row("猫怎么养", "狗")
    need = written(template, CHARACTERS, fields, 0)[1]
    with pytest.raises(
        UserError, match=rf"max_length is {need - 1}: .*'{template.name}'.* {need};"
    ):
        make_encoder(template, max_length=need - 1)
    assert make_encoder(template, max_length=need).encode(fields).truncated
