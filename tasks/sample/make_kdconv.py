"""Make the sample data of KdConv (dialogues with knowledge) that ships with cpm-tune.

A dialogue of nine messages is about one film, song or sight, each of them invented and in one
dialogue only, with facts drawn for it. The second message uses its description; then three pairs of
messages follow, a question with its answer or two facts told in turn, over facts in a drawn order;
the last message says goodbye. What a message uses stands in its attrs, as in KdConv. Every sentence
was composed for this project. Code: Apache-2.0 with the project; data: CC0-1.0. Scores on it are
NOT comparable with scores on the real KdConv.

Regenerate: `python tasks/sample/make_kdconv.py`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations, product
from pathlib import Path
from typing import Any

from frames import pick, some, values
from splits import HERE, draw

SIZES = {"train": 25, "dev": 7, "test": 9}  # dialogues a domain, of eight rows each


@dataclass(frozen=True)
class Domain:
    """What can be said of one kind of thing: {x} is its name, the other slots are its facts."""

    names: Sequence[str]
    facts: dict[str, Any]
    about: str
    opening: Sequence[str]
    reply: Sequence[str]
    asked: dict[str, tuple[Sequence[str], Sequence[str], str]]  # questions, answers, as told
    goodbye: Sequence[str]


NOUNS = ["晚风", "星空", "雨季", "候鸟", "麦田", "远山", "灯火", "小巷", "单车", "海岸"]
SONGS = [f"{one}与{other}" for one, other in permutations(NOUNS, 2)]
TITLES = [
    f"{where}的{what}"
    for where, what in product(
        ("雨后", "远方", "海边", "深夜", "南方", "春天", "屋顶上", "小镇", "月光下"),
        ("站台", "来信", "灯塔", "面馆", "琴声", "约定", "邮差", "花店", "歌声"),
    )
]
SIGHTS = [
    name + kind
    for name, kind in product(
        ("松鹤", "望月", "听雨", "白鹭", "凤鸣", "晴岚", "石泉", "枫叶"),
        ("湖", "古镇", "峡谷", "森林公园", "草原", "湿地"),
    )
]
BANDS = [f"{name}乐队" for name in ("南风", "北岸", "白夜", "青苔", "纸船", "蓝鲸", "慢车")]

DOMAINS = {
    "film": Domain(
        TITLES,
        {
            "类型": ["剧情片", "喜剧片", "悬疑片", "爱情片", "动画片"],
            "上映时间": [
                f"{year}年{month}月" for year in range(2003, 2020) for month in (2, 5, 10)
            ],
            "片长": [f"{minutes}分钟" for minutes in range(88, 145)],
            "取景地": ["云南", "福建", "四川", "甘肃", "浙江", "内蒙古", "贵州"],
            "主题曲": [f"《{song}》" for song in SONGS],
            "评分": ["7.2分", "7.6分", "8.1分", "8.4分", "8.8分", "9.0分"],
            "故事": [
                "一个邮差翻山越岭送信",
                "两个老朋友多年以后重逢",
                "一家三代人守护小店",
                "一位老师回到家乡教书",
                "几个孩子寻找走失的小狗",
                "一对姐妹经营一家旅馆",
            ],
        },
        "《{x}》是一部{类型}，于{上映时间}上映，讲述了{故事}的故事。",
        ["你看过《{x}》这部电影吗？", "对电影《{x}》有了解吗？", "听说过《{x}》吗？"],
        [
            "看过，是一部{类型}，讲的是{故事}的故事。",
            "知道一些，它讲述了{故事}的故事。",
            "当然，这部{类型}很有名。",
        ],
        {
            "上映时间": (
                ["它是什么时候上映的？", "你知道它哪一年上映吗？"],
                ["它是{上映时间}上映的。", "上映时间是{上映时间}。"],
                "它是{上映时间}上映的。",
            ),
            "片长": (
                ["这部电影有多长？", "片子长不长？"],
                ["片长{片长}。", "全片一共{片长}。"],
                "它的片长是{片长}。",
            ),
            "取景地": (
                ["画面真美，是在哪里拍的？", "你知道它在哪里取景吗？"],
                ["取景地在{取景地}。", "是在{取景地}拍的。"],
                "它是在{取景地}取景的。",
            ),
            "主题曲": (
                ["主题曲叫什么名字？", "片尾那首歌很好听，叫什么？"],
                ["主题曲是{主题曲}。", "那首歌叫{主题曲}。"],
                "它的主题曲是{主题曲}。",
            ),
            "评分": (
                ["观众的评价怎么样？", "它的评分高吗？"],
                ["评分有{评分}。", "观众给了它{评分}。"],
                "观众给了它{评分}。",
            ),
        },
        ["好的，周末我就找来看看。", "听你这么一说，我也想看了。", "谢谢，我去看一遍。"],
    ),
    "music": Domain(
        SONGS,
        {
            "演唱者": BANDS,
            "发行时间": [f"{year}年{month}月" for year in range(2001, 2020) for month in (3, 6, 9)],
            "专辑": [
                f"《{name}》" for name in ("出发", "归途", "白日梦", "四季", "夜航", "旧地图")
            ],
            "风格": ["民谣", "摇滚", "流行", "爵士", "电子"],
            "时长": [f"{m}分{s}秒" for m in (3, 4, 5) for s in range(5, 60, 6)],
            "奖项": ["年度金曲奖", "最佳编曲奖", "最佳作词奖", "最受欢迎歌曲奖"],
        },
        "《{x}》是{演唱者}演唱的一首{风格}歌曲，发行于{发行时间}，收录在专辑{专辑}中。",
        ["你听过《{x}》这首歌吗？", "知道《{x}》这首歌吗？", "对歌曲《{x}》有印象吗？"],
        ["听过，是一首{风格}歌曲。", "当然，很好听的一首{风格}歌。", "有印象，是{风格}风格的。"],
        {
            "演唱者": (
                ["它是谁唱的？", "你知道这首歌的演唱者吗？"],
                ["是{演唱者}唱的。", "演唱者是{演唱者}。"],
                "它的演唱者是{演唱者}。",
            ),
            "发行时间": (
                ["这首歌是什么时候发行的？", "它是哪一年的歌？"],
                ["是{发行时间}发行的。", "发行时间是{发行时间}。"],
                "它是{发行时间}发行的。",
            ),
            "专辑": (
                ["它收录在哪张专辑里？", "在哪张专辑里能听到它？"],
                ["收录在专辑{专辑}里。", "专辑的名字叫{专辑}。"],
                "它收录在专辑{专辑}里。",
            ),
            "时长": (
                ["这首歌有多长？", "整首歌多长时间？"],
                ["时长是{时长}。", "整首歌有{时长}。"],
                "这首歌有{时长}。",
            ),
            "奖项": (
                ["它得过什么奖吗？", "这首歌有没有获奖？"],
                ["获得过{奖项}。", "它得过{奖项}。"],
                "它得过{奖项}。",
            ),
        },
        ["我这就去听听。", "好，等会儿单曲循环。", "谢谢分享，我先收藏了。"],
    ),
    "travel": Domain(
        SIGHTS,
        {
            "地点": [
                f"{province}{part}"
                for province in ("浙江省", "云南省", "四川省", "福建省", "陕西省", "安徽省")
                for part in ("西部", "南部", "北部")
            ],
            "门票": ["免费", "30元", "45元", "60元", "80元", "100元"],
            "开放时间": ["8:00到18:00", "7:30到17:30", "9:00到17:00", "全天"],
            "游玩时长": ["半天", "一天", "两天", "三个小时"],
            "特色+最佳季节": [
                ("油菜花", "春季"),
                ("古桥", "春季"),
                ("萤火虫", "夏季"),
                ("星空", "夏季"),
                ("红叶", "秋季"),
                ("温泉", "冬季"),
            ],
        },
        "{x}位于{地点}，以{特色}闻名，{最佳季节}游客最多。",
        ["你去过{x}吗？", "对{x}有了解吗？", "知道{x}这个地方吗？"],
        ["去过，那里以{特色}闻名。", "知道，那里的{特色}很有名。", "听说{特色}是那里的招牌。"],
        {
            "地点": (
                ["它在什么地方？", "具体在哪里呢？"],
                ["在{地点}。", "它位于{地点}。"],
                "它位于{地点}。",
            ),
            "门票": (
                ["门票多少钱？", "去那里玩要买门票吗？"],
                ["门票{门票}。", "我查了一下，门票{门票}。"],
                "那里的门票{门票}。",
            ),
            "开放时间": (
                ["几点开门？", "你知道它的开放时间吗？"],
                ["开放时间是{开放时间}。", "{开放时间}开放。"],
                "那里{开放时间}开放。",
            ),
            "最佳季节": (
                ["什么时候去最好？", "哪个季节去比较合适？"],
                ["最佳季节是{最佳季节}。", "{最佳季节}去最合适。"],
                "{最佳季节}去最合适。",
            ),
            "游玩时长": (
                ["大概要玩多久？", "安排多长时间比较好？"],
                ["{游玩时长}就够了。", "建议安排{游玩时长}。"],
                "在那里玩{游玩时长}就够了。",
            ),
        },
        ["好的，下次放假我就去。", "听起来不错，我也想去看看。", "谢谢，我记下了。"],
    ),
}
LINKS = ["我还知道，", "另外，", "对了，", "听说"]
ANSWERS = ["", "", "据我所知，"]


def make(domain: Domain, drawn: random.Random) -> tuple[Hashable, Any]:
    """A dialogue; the thing it is about makes it."""
    name = drawn.choice(list(domain.names))
    known = {"x": name, **values(drawn, domain.facts)}

    def message(text: str, *facts: str) -> dict[str, Any]:
        attrs = [
            {
                "attrname": "Information" if fact == "about" else fact,
                "attrvalue": domain.about.format(**known) if fact == "about" else known[fact],
                "name": name,
            }
            for fact in facts
        ]
        said = {"message": text.format(**known)}
        return {"attrs": attrs, **said} if attrs else said

    messages = [message(pick(drawn, domain.opening)), message(pick(drawn, domain.reply), "about")]
    order = some(drawn, list(domain.asked), 5)
    for _ in range(3):
        fact = order.pop()
        questions, answers, told = domain.asked[fact]
        if len(order) > 2 and drawn.random() < 0.4:
            other = order.pop()
            for one, text in ((fact, told), (other, domain.asked[other][2])):
                messages.append(message(pick(drawn, LINKS) + text, one))
        else:
            messages.append(message(pick(drawn, questions)))
            messages.append(message(pick(drawn, ANSWERS) + pick(drawn, answers), fact))
    messages.append(message(pick(drawn, domain.goodbye)))
    return name, {"messages": messages, "name": name}


def main(out: Path = HERE) -> None:
    """Write film, music and travel with three files each below `out`/kdconv."""
    for name, domain in DOMAINS.items():
        one: Callable[[random.Random], tuple[Hashable, Any]] = partial(make, domain)
        for split, dialogues in draw(f"kdconv {name}", one, SIZES).items():
            path = out / "kdconv" / name / f"{split}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(dialogues, ensure_ascii=False, indent=1)
            path.write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
