"""Make the sample data of NCLS-EnZh (English news, Chinese summaries) that ships with cpm-tune.

An event is told in English: a lead, which sometimes has a sentence of background before it, and
three of four details in any order. Its Chinese summary gives the event and one figure, which a
detail holds. Towns and events are invented (words_texts.json holds the words that WMT20-EnZh uses
too). Every sentence was composed for this project. Code: Apache-2.0 with the project; data:
CC0-1.0. Scores on it are NOT comparable with scores on the real NCLS-EnZh.

Regenerate: `python tasks/sample/make_ncls_enzh.py`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from frames import pick, some
from splits import HERE, draw, write_jsonl

WORDS = json.loads((HERE / "words_texts.json").read_text(encoding="utf-8"))
SHARED = ("town", "time", "month", "money", "years", "hours")

# slots, leads, background, details, summaries; the first detail holds the summary's figure
FRAMES: list[tuple[dict[str, Any], list[str], str, list[str], list[str]]] = [
    (
        {"n": range(10, 40)},
        [
            "The new bridge across the river in {town} was opened to traffic {time}.",
            "Cars can now use the new river bridge in {town}, which was opened {time}.",
        ],
        "Drivers had been complaining about the traffic for years.",
        [
            "The bridge took {years} years to build.",
            "The project cost {money} dollars.",
            "People will save about {n} minutes on their way to work.",
            "The old bridge will be kept for walkers.",
        ],
        ["{town}新桥通车，历时{years}年建成", "历时{years}年，{town}新桥建成通车"],
    ),
    (
        {"n": range(20, 90), "m": range(3, 9)},
        [
            "A fire broke out in a warehouse in {town} {time}.",
            "A warehouse in {town} caught fire {time}.",
        ],
        "The summer has been unusually dry.",
        [
            "It took {n} firefighters to put out the flames.",
            "No one was hurt.",
            "The smoke could be seen from {m} kilometres away.",
            "The cause of the fire is not yet known.",
        ],
        ["{town}一仓库起火，{n}名消防员参与救火"],
    ),
    (
        {"n": range(5, 60, 5), "m": range(200, 900, 50)},
        [
            "A film festival began in {town} {time}.",
            "{town} opened its film festival {time}.",
        ],
        "Culture brings visitors even in quiet months.",
        [
            "{n} films from all over the world will be shown.",
            "Tickets for the first night were sold out within hours.",
            "About {m} guests are expected.",
            "A young actress will read the names of the winners.",
        ],
        ["{town}电影节开幕，将放映{n}部影片"],
    ),
    (
        {"n": range(100, 900, 50), "m": range(2, 9)},
        [
            "A car maker said {time} that it would close its factory in {town}.",
            "The car factory in {town} will be closed, its owner said {time}.",
        ],
        "Fewer and fewer people are buying new cars.",
        [
            "{n} workers will lose their jobs.",
            "The union called the decision a shock.",
            "The factory has made losses for {m} years.",
            "The mayor promised to help the families.",
        ],
        ["{town}汽车厂将关闭，{n}名工人失业", "{town}一家汽车厂将关闭，{n}人失业"],
    ),
    (
        {"n": range(5, 40), "m": range(300, 2000, 100)},
        [
            "A study says that children in {town} spend too little time outdoors.",
            "Children in {town} do not play outdoors enough, a study has found.",
        ],
        "Doctors have long warned of too much time in front of a screen.",
        [
            "On average they are outside for only {n} minutes a day.",
            "The researchers asked {m} families.",
            "Doctors advise parents to walk to school with their children.",
            "The results were published {time}.",
        ],
        ["研究发现{town}的儿童每天户外活动只有{n}分钟"],
    ),
    (
        {"n": range(3, 30), "m": range(20, 70)},
        [
            "Heavy snow stopped all trains to {town} {time}.",
            "No trains could reach {town} {time} because of heavy snow.",
        ],
        "Winter has come early this year.",
        [
            "About {n} thousand passengers had to wait.",
            "{m} centimetres of snow fell during the night.",
            "Hot tea was handed out at the station.",
            "Buses were also late.",
        ],
        ["大雪使{town}列车停运，约{n}000名乘客滞留"],
    ),
    (
        {"n": range(60, 95), "m": range(3, 12)},
        [
            "A woman from {town} won the national cooking prize {time}.",
            "The national cooking prize went to a woman from {town} {time}.",
        ],
        "Age is no reason to stop learning.",
        [
            "She is {n} years old.",
            "The judges praised her simple fish soup.",
            "She has {m} grandchildren.",
            "She wants to spend the prize money on a new oven.",
        ],
        ["{town}一名{n}岁的女子赢得全国烹饪大奖"],
    ),
    (
        {"n": range(4, 45), "m": range(2, 9)},
        [
            "House prices in {town} rose again in {month}.",
            "In {month} houses in {town} became even more expensive.",
        ],
        "Many young people cannot afford a home.",
        [
            "Prices are now {n} percent higher than a year ago.",
            "Experts expect no change for the next {m} months.",
            "There are more buyers than houses.",
            "The town wants to build cheaper flats.",
        ],
        ["{town}房价继续上涨，一年上涨{n}%", "一年上涨{n}%，{town}房价再创新高"],
    ),
    (
        {"n": range(20, 300, 10), "m": range(50, 300, 10)},
        [
            "Workers found old coins under a street in {town} {time}.",
            "Old coins were found {time} during building work in {town}.",
        ],
        "Nobody expected to find anything in the ground.",
        [
            "The {n} coins are all made of silver.",
            "The coins are about {m} years old.",
            "The museum wants to show the coins next spring.",
            "The building work has been stopped for now.",
        ],
        ["{town}施工中发现{n}枚古代银币"],
    ),
    (
        {"n": range(2, 30), "m": range(5, 50)},
        [
            "A school in {town} has banned mobile phones in class.",
            "Pupils at a school in {town} may no longer use their phones in class.",
        ],
        "Teachers say that it has become hard to keep pupils' attention.",
        [
            "The rule will be tested for {n} weeks.",
            "Most parents agree with the rule.",
            "{m} schools in the area may follow.",
            "The phones are locked away in the morning.",
        ],
        ["{town}一学校禁止上课使用手机，试行{n}周"],
    ),
    (
        {"n": range(2, 25), "m": range(10, 60)},
        [
            "A lost dog came back to its home in {town} {time}.",
            "{time_first}, a family in {town} got their lost dog back.",
        ],
        "Sometimes patience is rewarded.",
        [
            "The dog had been missing for {n} months.",
            "The animal must have walked more than {m} kilometres.",
            "The children had put up posters everywhere.",
            "The dog is thin but in good health.",
        ],
        ["{town}一只小狗走失{n}个月后回家", "走失{n}个月，{town}一只小狗回到家中"],
    ),
    (
        {"n": range(10, 90, 5), "m": range(2, 8)},
        [
            "{town} is going to replace its buses with electric ones.",
            "All buses in {town} will soon be electric, the mayor said {time}.",
        ],
        "The air in many towns is far from clean.",
        [
            "{n} new buses have been ordered.",
            "The change will take {m} years.",
            "Tickets will not become more expensive.",
            "Drivers are looking forward to the quiet engines.",
        ],
        ["{town}将改用电动公交车，已订购{n}辆"],
    ),
    (
        {"n": range(200, 3000, 100), "m": range(2, 6)},
        [
            "Volunteers planted trees on the hills around {town} {time}.",
            "Many people came to the hills near {town} {time} to plant trees.",
        ],
        "After the storm there was little left of the forest.",
        [
            "{n} young oaks are now in the ground.",
            "Schools had taken part for the first time.",
            "The town will water the trees for {m} years.",
            "Farmers lent their tools.",
        ],
        ["{town}志愿者上山植树，种下{n}棵橡树", "志愿者在{town}种下{n}棵橡树"],
    ),
    (
        {"n": range(20, 400, 20), "m": range(3, 9)},
        [
            "The hospital in {town} needs more nurses, its director said {time}.",
            "There are too few nurses at the hospital in {town}, a report said {time}.",
        ],
        "More and more people live to a very old age.",
        [
            "{n} jobs are open at the moment.",
            "Patients sometimes wait for {m} hours.",
            "The hospital now offers free flats.",
            "Similar problems are known from other towns.",
        ],
        ["{town}医院缺少护士，空缺{n}个岗位"],
    ),
]


def make(drawn: random.Random) -> tuple[Hashable, Any]:
    """A document and its Chinese summary; town, event and figure make the row."""
    slots, leads, background, details, summaries = drawn.choice(FRAMES)
    both = {name: pick(drawn, WORDS[name]) for name in SHARED}
    both |= {name: [str(value := pick(drawn, slots[name])), str(value)] for name in slots}
    english, chinese = ({name: pair[side] for name, pair in both.items()} for side in (0, 1))
    english["time_first"] = english["time"][0].upper() + english["time"][1:]
    before = [background] if drawn.random() < 0.35 else []
    told = [
        *before,
        pick(drawn, leads),
        *some(drawn, [details[0], *some(drawn, details[1:], 2)], 3),
    ]
    summary = pick(drawn, summaries).format(**chinese)
    key = (english["town"], details[0].format(**english))
    return key, {"document": " ".join(told).format(**english), "summary": summary}


def main(out: Path = HERE) -> None:
    """Write the three files below `out`/ncls_enzh."""
    write_jsonl(out / "ncls_enzh", draw("ncls_enzh", make))


if __name__ == "__main__":
    main()
