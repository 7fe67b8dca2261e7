"""Make the sample data of WMT20-EnZh (news sentences) that ships with cpm-tune.

A pair of sentences is one of 26 frames, written in both languages, whose slots are filled with the
same words or figures on both sides; in most frames the two languages put them in different order.
The fields are CUGE's: source is the Chinese side. Towns and events are invented (words_texts.json
holds the words that NCLS-EnZh uses too). Every sentence was composed for this project. Code:
Apache-2.0 with the project; data: CC0-1.0. Scores on it are NOT comparable with scores on the real
WMT20-EnZh.

Regenerate: `python tasks/sample/make_wmt20_enzh.py`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from frames import pick
from splits import HERE, draw, write_jsonl

Pairs = list[tuple[str, str]]
WORDS = json.loads((HERE / "words_texts.json").read_text(encoding="utf-8"))
ORGAN: Pairs = [
    ("The city council", "市议会"),
    ("The ministry of education", "教育部"),
    ("The health department", "卫生部门"),
    ("The railway company", "铁路公司"),
    ("The central bank", "中央银行"),
    ("The airline", "这家航空公司"),
    ("The hospital", "这家医院"),
    ("The football club", "这家足球俱乐部"),
]
PLAN: Pairs = [
    ("build a new bridge", "修建一座新桥"),
    ("hire more nurses", "招聘更多护士"),
    ("cut ticket prices", "降低票价"),
    ("plant ten thousand trees", "种植一万棵树"),
    ("raise wages", "提高工资"),
    ("publish the full report", "公布完整的报告"),
    ("stop using plastic bags", "停止使用塑料袋"),
    ("invest more in training", "增加对培训的投入"),
]
GOODS: Pairs = [
    ("oil", "石油"),
    ("rice", "大米"),
    ("coffee", "咖啡"),
    ("copper", "铜"),
    ("milk", "牛奶"),
    ("wheat", "小麦"),
    ("cotton", "棉花"),
]
EVENT: Pairs = [
    ("film festival", "电影节"),
    ("book fair", "书展"),
    ("marathon", "马拉松"),
    ("food festival", "美食节"),
    ("science fair", "科技展"),
    ("music festival", "音乐节"),
]
CAUSE: Pairs = [
    ("heavy snow", "大雪"),
    ("strong wind", "大风"),
    ("thick fog", "大雾"),
    ("a power failure", "停电"),
    ("a strike", "罢工"),
]
TOPIC: Pairs = [
    ("climate change", "气候变化"),
    ("food safety", "食品安全"),
    ("space research", "太空研究"),
    ("public health", "公共卫生"),
    ("education", "教育"),
    ("clean energy", "清洁能源"),
]
PAPER: Pairs = [
    ("report", "报告"),
    ("decision", "决定"),
    ("plan", "计划"),
    ("proposal", "提议"),
    ("agreement", "协议"),
]
QUOTE: Pairs = [
    ("We still have a lot of work to do", "我们还有很多工作要做"),
    ("The results are better than expected", "结果好于预期"),
    ("We will not give up", "我们不会放弃"),
    ("Safety always comes first", "安全永远是第一位的"),
    ("This is good news for everyone", "这对每个人来说都是好消息"),
    ("Nobody wants to wait any longer", "没有人愿意再等下去"),
]
HABIT: Pairs = [
    ("walk every day", "每天散步"),
    ("sleep eight hours", "睡够八小时"),
    ("eat more vegetables", "多吃蔬菜"),
    ("drink less coffee", "少喝咖啡"),
    ("read before going to bed", "睡前读书"),
]
TROUBLE: Pairs = [
    ("catch a cold", "感冒"),
    ("feel tired", "感到疲劳"),
    ("have headaches", "头疼"),
    ("gain weight", "发胖"),
]
OPINION: Pairs = [
    ("walk to school", "步行上学"),
    ("want to study abroad", "想出国留学"),
    ("prefer online classes", "更喜欢网上课程"),
    ("read books at the weekend", "周末会读书"),
    ("have a part-time job", "有一份兼职"),
]
COMPANY: Pairs = [
    ("car", "汽车"),
    ("software", "软件"),
    ("food", "食品"),
    ("energy", "能源"),
    ("shipping", "航运"),
]
BURNT: Pairs = [
    ("an old warehouse", "一座旧仓库"),
    ("a furniture shop", "一家家具店"),
    ("a pine forest", "一片松林"),
    ("a paper mill", "一家造纸厂"),
]
SHOWN: Pairs = [
    ("paintings", "画作"),
    ("clocks", "钟表"),
    ("vases", "花瓶"),
    ("costumes", "服装"),
    ("weapons", "兵器"),
]
EFFECT: Pairs = [
    ("the station will be rebuilt", "车站将重建"),
    ("parking will become more expensive", "停车费将上涨"),
    ("the park will be twice as large", "公园面积将扩大一倍"),
    ("bus tickets will be free", "公交车将免票"),
    ("the old market will be closed", "老市场将关闭"),
]
SOURCE: Pairs = [
    ("the police", "警方消息"),
    ("local media", "当地媒体报道"),
    ("a witness", "一名目击者说"),
    ("the newspaper", "该报报道"),
]
FACT: Pairs = [
    ("no one was hurt", "没有人受伤"),
    ("three people were arrested", "三人被捕"),
    ("the road will be closed until Friday", "这条道路将封闭到周五"),
    ("most shops have opened again", "大多数商店已经重新营业"),
    ("the driver had fallen asleep", "司机睡着了"),
]
BUILT: Pairs = [
    ("airport", "机场"),
    ("library", "图书馆"),
    ("stadium", "体育场"),
    ("tunnel", "隧道"),
    ("museum", "博物馆"),
    ("bridge", "大桥"),
]
SHARED = ("town", "time", "month", "direction", "role", "money", "years", "hours")
KNOWN = {
    **{name: [tuple(pair) for pair in WORDS[name]] for name in SHARED},
    **{"organ": ORGAN, "plan": PLAN, "goods": GOODS, "event": EVENT, "cause": CAUSE},
    **{"topic": TOPIC, "paper": PAPER, "quote": QUOTE, "habit": HABIT, "trouble": TROUBLE},
    **{"opinion": OPINION, "company": COMPANY, "burnt": BURNT, "shown": SHOWN},
    **{"effect": EFFECT, "origin": SOURCE, "fact": FACT, "built": BUILT},
    **{"n": range(20, 900, 10), "p": range(3, 70), "age": range(60, 80)},
    **{
        "score": [(f"{a} to {b}", f"{a}比{b}") for a, b in ((1, 0), (2, 1), (3, 0), (3, 2), (4, 1))]
    },
    **{"century": [(f"{n}th", str(n)) for n in range(16, 20)]},
}
FRAMES: list[tuple[str, str]] = [
    ("{organ} said {time} that it would {plan}.", "{organ}{time}表示将{plan}。"),
    ("{organ} is planning to {plan} next year.", "{organ}计划明年{plan}。"),
    ("The price of {goods} rose by {p} percent in {month}.", "{month}{goods}的价格上涨了{p}%。"),
    ("The price of {goods} fell by {p} percent in {month}.", "{month}{goods}的价格下降了{p}%。"),
    ("More than {n} people took part in the {event} in {town}.", "{n}多人参加了{town}的{event}。"),
    ("{town} will host the {event} next year.", "明年{town}将举办{event}。"),
    (
        "The number of tourists in {town} grew by {p} percent in {month}.",
        "{month}到{town}的游客人数增长了{p}%。",
    ),
    (
        "Rain is expected in the {direction} of the country {time2}.",
        "预计{time2}全国{direction}将有降雨。",
    ),
    (
        "The new {built} in {town} took {years} years to build and cost {money} dollars.",
        "{town}的新{built}用了{years}年建成，耗资{money}美元。",
    ),
    (
        "The {role} has not yet commented on the {paper}.",
        "{role}尚未对该{paper}发表评论。",
    ),
    (
        "Researchers found that people who {habit} are less likely to {trouble}.",
        "研究人员发现，{habit}的人更不容易{trouble}。",
    ),
    ("“{quote},” the {role} told reporters {time}.", "{role}{time}对记者说：“{quote}。”"),
    (
        "The mayor of {town} thanked the volunteers for their help.",
        "{town}的市长感谢志愿者的帮助。",
    ),
    ("{town} beat {town2} {score} {time}.", "{time}，{town}队以{score}击败{town2}队。"),
    (
        "Shares of the {company} company fell {p} percent {time}.",
        "{time}，这家{company}公司的股价下跌了{p}%。",
    ),
    ("About {p} percent of the students {opinion}.", "约{p}%的学生{opinion}。"),
    (
        "Trains from {town} to {town2} were {hours} hours late because of {cause}.",
        "由于{cause}，从{town}开往{town2}的列车晚点了{hours}个小时。",
    ),
    ("The two countries agreed to work together on {topic}.", "两国同意在{topic}方面展开合作。"),
    ("They signed {time} an agreement on {topic}.", "他们{time}签署了一份关于{topic}的协议。"),
    (
        "Firefighters needed {hours} hours to put out the fire in {burnt}.",
        "消防员用了{hours}个小时才扑灭{burnt}的大火。",
    ),
    (
        "The exhibition in {town} shows {n} {shown} from the {century} century.",
        "{town}的展览展出了{n}件{century}世纪的{shown}。",
    ),
    ("If the {paper} is approved, {effect}.", "如果该{paper}获得批准，{effect}。"),
    ("According to {origin}, {fact}.", "据{origin}，{fact}。"),
    ("The {event} in {town} was cancelled because of {cause}.", "{town}的{event}因{cause}取消。"),
    (
        "A {age}-year-old man from {town} won the {event} prize.",
        "{town}一名{age}岁的男子赢得了{event}大奖。",
    ),
    (
        "Nearly {p} percent of the people in the {direction} work in the {company} industry.",
        "{direction}将近{p}%的人从事{company}行业。",
    ),
]
LATER: Pairs = [("tomorrow", "明天"), ("this weekend", "本周末"), ("next week", "下周")]


def make(drawn: random.Random) -> tuple[Hashable, Any]:
    """A sentence in both languages; the English side makes the row."""
    both = {name: pick(drawn, choices) for name, choices in KNOWN.items()}
    both["time2"] = pick(drawn, LATER)
    both["town2"] = pick(drawn, [town for town in KNOWN["town"] if town != both["town"]])
    english, chinese = (
        {name: value[side] if isinstance(value, tuple) else value for name, value in both.items()}
        for side in (0, 1)
    )
    frame = drawn.choice(FRAMES)
    target = frame[0].format(**english)
    return target, {"source": frame[1].format(**chinese), "target": target}


def main(out: Path = HERE) -> None:
    """Write the three files below `out`/wmt20_enzh."""
    splits = {
        split: [{"index": number, **row} for number, row in enumerate(rows)]
        for split, rows in draw("wmt20_enzh", make).items()
    }
    write_jsonl(out / "wmt20_enzh", splits)


if __name__ == "__main__":
    main()
