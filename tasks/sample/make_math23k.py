"""Make the sample data of Math23K (word problems) that ships with cpm-tune.

A problem is one of 32 stories of one to three operations with drawn names, things and numbers, in
Math23K's fields; some stories hold a number that is not needed, and the order of the numbers in the
text is not always that of the equation. Answers are worked out exactly; numbers are drawn again
until the answer is a sensible one. No story with the same numbers occurs twice. Every sentence was
composed for this project. Code: Apache-2.0 with the project; data: CC0-1.0. Scores on it are NOT
comparable with scores on the real Math23K.

Regenerate: `python tasks/sample/make_math23k.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

from frames import values
from splits import HERE, draw, write_jsonl

CHILD = ["小明", "小红", "小华", "小丽", "小刚", "小芳", "小军", "小兰", "小强", "小梅"]
THING = [
    ("故事书", "本"),
    ("铅笔", "支"),
    ("苹果", "个"),
    ("邮票", "张"),
    ("气球", "个"),
    ("糖果", "颗"),
    ("贺卡", "张"),
    ("练习本", "本"),
    ("橘子", "个"),
    ("贝壳", "枚"),
]
CLASS = ["三年级", "四年级", "五年级", "六年级", "合唱队", "足球队", "美术组", "舞蹈队"]
GOODS = [
    ("书包", "个"),
    ("足球", "个"),
    ("台灯", "盏"),
    ("水壶", "个"),
    ("雨伞", "把"),
    ("钢笔", "支"),
    ("毛巾", "条"),
    ("篮球", "个"),
]
CROP = ["苹果树", "梨树", "桃树", "杏树", "枣树"]
FOOD = ["大米", "面粉", "白菜", "土豆", "花生", "黄豆"]
FACTORY = ["服装厂", "玩具厂", "家具厂", "印刷厂", "食品厂"]
MADE = {
    "服装厂": ("衣服", "套"),
    "玩具厂": ("玩具", "件"),
    "家具厂": ("课桌", "张"),
    "印刷厂": ("画册", "本"),
    "食品厂": ("饼干", "箱"),
}
SLOTS: dict[str, Any] = {
    "child": CHILD,
    "thing+m": THING,
    "team": CLASS,
    "goods+g": GOODS,
    "crop": CROP,
    "food": FOOD,
    "factory": FACTORY,
    "p": [10, 20, 25, 30, 40, 60, 75, 80],
    "u+v": [(2, 3), (3, 4), (2, 5), (3, 5), (4, 5), (5, 6), (3, 7), (3, 8), (5, 8)],
}
Value = Callable[..., Fraction]

# text with spaces between words, equation, its value from a, b, c, p, u, v, ranges of a, b, c
STORIES: list[tuple[str, str, Value, tuple[range, range, range]]] = [
    (
        "{child} 有 {a} {m} {thing} ， 妈妈 又 买来 {b} {m} ， 现在 一共 有 多少 {m} ？",
        "{a}+{b}",
        lambda a, b, **_: a + b,
        (range(5, 60), range(4, 40), range(1)),
    ),
    (
        "{child} 有 {a} {m} {thing} ， 送给 同学 {b} {m} ， 还 剩 多少 {m} ？",
        "{a}-{b}",
        lambda a, b, **_: a - b,
        (range(30, 90), range(4, 28), range(1)),
    ),
    (
        "每 {g} {goods} {a} 元 ， 学校 买 了 {b} {g} ， 一共 要 付 多少 元 ？",
        "{a}*{b}",
        lambda a, b, **_: a * b,
        (range(12, 90), range(3, 40), range(1)),
    ),
    (
        "老师 把 {a} {m} {thing} 平均 分 给 {b} 个 小组 ， 每 个 小组 分到 多少 {m} ？",
        "{a}/{b}",
        lambda a, b, **_: Fraction(a, b),
        (range(24, 240), range(3, 13), range(1)),
    ),
    (
        "{team} 有 {a} 人 ， 比 去年 多 {b} 人 ， 去年 有 多少 人 ？",
        "{a}-{b}",
        lambda a, b, **_: a - b,
        (range(30, 120), range(3, 25), range(1)),
    ),
    (
        "一 根 绳子 长 {a} 米 ， 用去 了 {b} 米 ， 还 剩 多少 米 ？",
        "{a}-{b}",
        lambda a, b, **_: a - b,
        (range(20, 60), range(3, 18), range(1)),
    ),
    (
        "果园 里 有 {a} 棵 {crop} ， 其中 {p}% 已经 结果 ， 结果 的 有 多少 棵 ？",
        "{a}*{p}%",
        lambda a, p, **_: Fraction(a * p, 100),
        (range(100, 900, 20), range(1), range(1)),
    ),
    (
        "{team} 有 {a} 人 ， 其中 ({u}/{v}) 是 女生 ， 女生 有 多少 人 ？",
        "{a}*({u}/{v})",
        lambda a, u, v, **_: Fraction(a * u, v),
        (range(30, 240), range(1), range(1)),
    ),
    (
        "{child} 第一天 看 了 {a} 页 书 ， 第二天 看 的 页数 是 第一天 的 {b} 倍 ， "
        "两天 一共 看 了 多少 页 ？",
        "{a}+{a}*{b}",
        lambda a, b, **_: a + a * b,
        (range(8, 40), range(2, 6), range(1)),
    ),
    (
        "食堂 运来 {a} 袋 {food} ， 每 袋 重 {b} 千克 ， 吃 了 {c} 千克 ， 还 剩 多少 千克 ？",
        "{a}*{b}-{c}",
        lambda a, b, c, **_: a * b - c,
        (range(6, 40), range(10, 60, 5), range(20, 60)),
    ),
    (
        "{child} 带 了 {a} 元 ， 买 了 {b} {g} {goods} ， 每 {g} {c} 元 ， 应 找回 多少 元 ？",
        "{a}-{b}*{c}",
        lambda a, b, c, **_: a - b * c,
        (range(100, 500, 50), range(2, 7), range(9, 40)),
    ),
    (
        "{factory} 计划 做 {a} {mm} {made} ， 已经 做 了 {b} 天 ， 每天 做 {c} {mm} ， "
        "还 要 做 多少 {mm} ？",
        "{a}-{b}*{c}",
        lambda a, b, c, **_: a - b * c,
        (range(600, 2000, 20), range(3, 12), range(20, 55)),
    ),
    (
        "{factory} 要 做 {a} {mm} {made} ， 原 计划 {b} 天 完成 ， 实际 每天 多 做 {c} {mm} ， "
        "实际 每天 做 多少 {mm} ？",
        "{a}/{b}+{c}",
        lambda a, b, c, **_: Fraction(a, b) + c,
        (range(200, 1800, 20), range(4, 21), range(5, 30)),
    ),
    (
        "甲 、 乙 两地 相距 {a} 千米 ， 一 辆 汽车 每 小时 行 {b} 千米 ， 行 了 {c} 小时 ， "
        "离 乙地 还有 多少 千米 ？",
        "{a}-{b}*{c}",
        lambda a, b, c, **_: a - b * c,
        (range(300, 900, 10), range(50, 95, 5), range(2, 6)),
    ),
    (
        "两 辆 车 同时 从 两地 相对 开出 ， 一 辆 每 小时 行 {a} 千米 ， 另 一 辆 每 小时 行 "
        "{b} 千米 ， {c} 小时 后 相遇 ， 两地 相距 多少 千米 ？",
        "({a}+{b})*{c}",
        lambda a, b, c, **_: (a + b) * c,
        (range(40, 95, 5), range(42, 98, 4), range(2, 9)),
    ),
    (
        "一块 长方形 菜地 长 {a} 米 ， 宽 {b} 米 ， 在 它 的 四周 围 上 篱笆 ， 篱笆 长 多少 米 ？",
        "({a}+{b})*2",
        lambda a, b, **_: (a + b) * 2,
        (range(20, 60), range(6, 20), range(1)),
    ),
    (
        "一块 长方形 菜地 长 {a} 米 ， 宽 {b} 米 ， 每 平方米 收 菜 {c} 千克 ， "
        "一共 收 菜 多少 千克 ？",
        "{a}*{b}*{c}",
        lambda a, b, c, **_: a * b * c,
        (range(12, 40), range(5, 12), range(3, 9)),
    ),
    (
        "一 台 风扇 原价 {a} 元 ， 现在 降价 {p}% ， 现价 多少 元 ？",
        "{a}*(1-{p}%)",
        lambda a, p, **_: a * (1 - Fraction(p, 100)),
        (range(80, 600, 20), range(1), range(1)),
    ),
    (
        "{factory} 去年 有 工人 {a} 人 ， 今年 比 去年 增加 {p}% ， 今年 有 工人 多少 人 ？",
        "{a}*(1+{p}%)",
        lambda a, p, **_: a * (1 + Fraction(p, 100)),
        (range(100, 900, 20), range(1), range(1)),
    ),
    (
        "{child} 看 一本 {a} 页 的 书 ， 已经 看 了 全书 的 ({u}/{v}) ， 还 剩 多少 页 没 看 ？",
        "{a}*(1-({u}/{v}))",
        lambda a, u, v, **_: a * (1 - Fraction(u, v)),
        (range(60, 360, 5), range(1), range(1)),
    ),
    (
        "{child} 有 {a} {m} {thing} ， 是 弟弟 的 {b} 倍 ， 两人 一共 有 多少 {m} ？",
        "{a}+{a}/{b}",
        lambda a, b, **_: a + Fraction(a, b),
        (range(12, 150), range(2, 7), range(1)),
    ),
    (
        "一 台 打印机 {b} 分钟 印 了 {a} 页 ， 照 这样 的 速度 ， {c} 分钟 能 印 多少 页 ？",
        "{a}/{b}*{c}",
        lambda a, b, c, **_: Fraction(a, b) * c,
        (range(180, 900, 30), range(3, 9), range(10, 40)),
    ),
    (
        "{child} 语文 得 了 {a} 分 ， 数学 得 了 {b} 分 ， 英语 得 了 {c} 分 ， "
        "三 门 课 的 平均 成绩 是 多少 分 ？",
        "({a}+{b}+{c})/3",
        lambda a, b, c, **_: Fraction(a + b + c, 3),
        (range(80, 100), range(80, 100), range(80, 100)),
    ),
    (
        "果园 里 有 {a} 棵 {crop} ， 柿子树 的 棵数 比 它 的 {b} 倍 少 {c} 棵 ， "
        "柿子树 有 多少 棵 ？",
        "{a}*{b}-{c}",
        lambda a, b, c, **_: a * b - c,
        (range(30, 120), range(2, 6), range(5, 28)),
    ),
    (
        "果园 里 有 柿子树 {a} 棵 ， 比 {crop} 的 {b} 倍 多 {c} 棵 ， {crop} 有 多少 棵 ？",
        "({a}-{c})/{b}",
        lambda a, b, c, **_: Fraction(a - c, b),
        (range(100, 400), range(2, 6), range(5, 28)),
    ),
    (
        "王老师 买 了 {a} {g} {goods} ， 付 了 {b} 元 ， 找回 {c} 元 ， 每 {g} {goods} 多少 元 ？",
        "({b}-{c})/{a}",
        lambda a, b, c, **_: Fraction(b - c, a),
        (range(2, 13), range(100, 500, 50), range(2, 80)),
    ),
    (
        "一 箱 牛奶 有 {a} 盒 ， {b} 箱 一共 {c} 元 ， 平均 每 盒 多少 元 ？",
        "{c}/({a}*{b})",
        lambda a, b, c, **_: Fraction(c, a * b),
        (range(10, 25, 2), range(2, 6), range(60, 400, 10)),
    ),
    (
        "学校 买来 {a} 套 桌椅 ， 每 张 桌子 {b} 元 ， 每 把 椅子 {c} 元 ， 一共 花 了 多少 元 ？",
        "({b}+{c})*{a}",
        lambda a, b, c, **_: (b + c) * a,
        (range(12, 60), range(80, 180, 5), range(25, 75, 5)),
    ),
    (
        "爷爷 今年 {a} 岁 ， 比 {child} 年龄 的 {b} 倍 还 大 {c} 岁 ， {child} 今年 多少 岁 ？",
        "({a}-{c})/{b}",
        lambda a, b, c, **_: Fraction(a - c, b),
        (range(60, 80), range(5, 9), range(1, 10)),
    ),
    (
        "仓库 里 有 {a} 吨 {food} ， 第一次 运走 {p}% ， 第二次 运走 {b} 吨 ， 还 剩 多少 吨 ？",
        "{a}*(1-{p}%)-{b}",
        lambda a, b, p, **_: a * (1 - Fraction(p, 100)) - b,
        (range(100, 600, 20), range(5, 25), range(1)),
    ),
    (
        "修 一条 {a} 米 长 的 路 ， 前 {b} 天 每天 修 {c} 米 ， 剩下 的 要 在 {v} 天 内 修完 ， "
        "平均 每天 修 多少 米 ？",
        "({a}-{b}*{c})/{v}",
        lambda a, b, c, v, **_: Fraction(a - b * c, v),
        (range(800, 3000, 50), range(3, 9), range(40, 90, 5)),
    ),
    (
        "{team} 的 {a} 名 同学 去 划船 ， 大船 坐 {b} 人 ， 租 了 {c} 条 大船 正好 坐满 ， "
        "其余 的 人 坐 小船 ， 每 条 小船 坐 4 人 ， 要 租 多少 条 小船 ？",
        "({a}-{b}*{c})/4",
        lambda a, b, c, **_: Fraction(a - b * c, 4),
        (range(40, 120), range(6, 11), range(2, 8)),
    ),
]


def sensible(answer: Fraction, text: str) -> bool:
    """Whether a problem may have this answer: above 0, whole or, of money, with one decimal."""
    parts = 10 if "平均 每 盒" in text else 1
    return answer > 0 and (answer * parts).denominator == 1


def written(answer: Fraction) -> str:
    """A number as Math23K writes it."""
    return str(answer.numerator if answer.denominator == 1 else float(answer))


def make(drawn: random.Random) -> tuple[Hashable, Any]:
    """A problem without its number; story and numbers make the row."""
    text, equation, value, ranges = drawn.choice(STORIES)
    known: dict[str, Any] = {}
    while not known or not sensible(value(**known), text):
        known = values(drawn, {**SLOTS, **dict(zip("abc", ranges, strict=True))})
        known["made"], known["mm"] = MADE[known["factory"]]
    segmented = text.format(**known)
    record = {
        "original_text": segmented.replace(" ", ""),
        "segmented_text": segmented,
        "equation": "x=" + equation.format(**known),
        "ans": written(value(**known)),
    }
    return (text, record["equation"]), record


def main(out: Path = HERE) -> None:
    """Write the three files below `out`/math23k."""
    number = count(1)
    splits = {
        split: [{"id": str(next(number)), **row} for row in rows]
        for split, rows in draw("math23k", make).items()
    }
    write_jsonl(out / "math23k", splits)


if __name__ == "__main__":
    main()
