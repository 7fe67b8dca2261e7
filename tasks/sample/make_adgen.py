"""Make the sample data of E-Reviews / AdvertiseGen (garments) that ships with cpm-tune.

A garment gets features that go together (a sweater is not of chiffon), in a drawn order. Its
advertisement is an opening, one clause for every feature but the type, in the features' order, and
a closing line; every clause has two wordings. Fields as in CUGE. No set of features occurs twice.
Every sentence was composed for this project. Code: Apache-2.0 with the project; data: CC0-1.0.
Scores on it are NOT comparable with scores on the real data.

Regenerate: `python tasks/sample/make_adgen.py`.
"""

from __future__ import annotations

import random
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from frames import pick
from splits import HERE, draw, write_jsonl

Features = dict[str, list[str]]
COMMON: Features = {
    "颜色": ["白色", "黑色", "红色", "蓝色", "粉色", "绿色", "灰色", "卡其色"],
    "风格": ["简约", "复古", "休闲", "文艺", "通勤", "甜美"],
    "图案": ["纯色", "条纹", "格子", "印花", "刺绣", "波点"],
    "版型": ["宽松", "显瘦"],
}
# type, the feature that names the garment, its measure word, and what each garment can have
GARMENTS: list[tuple[str, str, str, dict[str, Features]]] = [
    (
        "上衣",
        "衣样式",
        "件",
        {
            "衬衫": {
                "材质": ["棉", "雪纺", "亚麻", "牛仔布"],
                "衣领型": ["翻领", "立领", "娃娃领"],
                "衣袖型": ["灯笼袖", "泡泡袖", "长袖"],
            },
            "卫衣": {
                "材质": ["棉", "针织"],
                "衣领型": ["圆领", "连帽"],
                "衣款式": ["口袋", "抽绳", "螺纹"],
            },
            "毛衣": {
                "材质": ["羊毛", "针织"],
                "衣领型": ["圆领", "高领", "V领"],
                "衣款式": ["螺纹", "拼接"],
            },
            "外套": {
                "材质": ["牛仔布", "羊毛", "棉"],
                "衣领型": ["翻领", "立领", "连帽"],
                "衣款式": ["口袋", "纽扣", "拉链"],
            },
            "风衣": {
                "材质": ["棉"],
                "衣领型": ["翻领"],
                "衣款式": ["腰带", "纽扣", "口袋"],
            },
        },
    ),
    (
        "裙",
        "裙长",
        "条",
        {
            "连衣裙": {
                "材质": ["棉", "雪纺", "蕾丝", "针织"],
                "裙型": ["A字", "百褶", "直筒"],
                "裙领型": ["圆领", "V领", "方领"],
                "裙腰型": ["高腰", "系带"],
            },
            "半身裙": {
                "材质": ["棉", "雪纺", "牛仔布", "针织"],
                "裙型": ["A字", "百褶", "鱼尾"],
                "裙腰型": ["高腰", "松紧腰"],
                "裙下摆": ["开叉", "荷叶边"],
            },
        },
    ),
    (
        "裤",
        "裤型",
        "条",
        {
            "阔腿裤": {
                "材质": ["棉", "亚麻", "雪纺", "牛仔布"],
                "裤长": ["长裤", "九分裤"],
                "裤腰型": ["高腰", "松紧腰", "系带"],
            },
            "直筒裤": {
                "材质": ["棉", "牛仔布", "针织"],
                "裤长": ["长裤", "九分裤"],
                "裤腰型": ["高腰", "松紧腰"],
                "裤款式": ["口袋", "拼接"],
            },
            "背带裤": {
                "材质": ["棉", "牛仔布"],
                "裤长": ["长裤", "九分裤", "短裤"],
                "裤款式": ["口袋", "纽扣"],
            },
        },
    ),
]
CLAUSES = {
    "棉": ("棉质面料柔软亲肤", "选用纯棉面料，吸汗透气"),
    "雪纺": ("轻盈的雪纺面料随风飘动", "雪纺材质轻薄凉爽"),
    "亚麻": ("亚麻面料透气，带着自然的纹理", "选用天然亚麻，夏天穿着不闷热"),
    "牛仔布": ("牛仔布料挺括耐磨", "经典的牛仔布料越穿越有味道"),
    "针织": ("针织面料弹性十足，贴身却不紧绷", "细密的针织面料手感柔软"),
    "羊毛": ("羊毛材质轻便又保暖", "精选羊毛，触感细腻温暖"),
    "蕾丝": ("精致的蕾丝若隐若现", "蕾丝面料平添几分浪漫"),
    "白色": ("干净的白色清爽百搭", "白色简单耐看"),
    "黑色": ("黑色沉稳大方", "经典的黑色怎么搭都好看"),
    "红色": ("明亮的红色衬得肤色白皙", "红色热烈，在人群中格外亮眼"),
    "蓝色": ("清新的蓝色让人想起晴朗的天空", "蓝色安静又耐看"),
    "粉色": ("柔和的粉色温柔可人", "粉色让人看上去更有活力"),
    "绿色": ("清爽的绿色充满生机", "绿色给人自然清新的感觉"),
    "灰色": ("低调的灰色不容易过时", "灰色耐脏又好搭配"),
    "卡其色": ("温暖的卡其色很有秋天的味道", "卡其色沉静又有质感"),
    "简约": ("设计简约，没有多余的装饰", "简约的线条干净利落"),
    "复古": ("复古的气息扑面而来", "带着老照片一样的复古味道"),
    "休闲": ("休闲的样式轻松自在", "休闲随性，出门散步也舒服"),
    "文艺": ("透着淡淡的文艺气质", "文艺的设计适合安静的你"),
    "通勤": ("上班通勤穿也很得体", "通勤的款式干练大方"),
    "甜美": ("甜美的样式很显年轻", "处处流露出甜美的少女感"),
    "纯色": ("纯色设计简洁大方", "整体采用纯色，不挑搭配"),
    "条纹": ("条纹图案拉长了身形", "清晰的条纹带来节奏感"),
    "格子": ("格子图案经典耐看", "大小适中的格子充满学院气息"),
    "印花": ("满身的印花生动活泼", "别致的印花让人眼前一亮"),
    "刺绣": ("细致的刺绣体现了手工之美", "点缀的刺绣精巧可爱"),
    "波点": ("俏皮的波点增添了趣味", "波点图案活泼又不张扬"),
    "宽松": ("宽松的版型不挑身材", "版型宽松，活动起来毫无束缚"),
    "显瘦": ("合身的剪裁十分显瘦", "显瘦的版型勾勒出好身材"),
    "翻领": ("翻领设计大方得体", "挺括的翻领修饰脸型"),
    "立领": ("立领设计显得很有精神", "小小的立领端庄优雅"),
    "娃娃领": ("圆润的娃娃领减龄又可爱", "娃娃领设计俏皮动人"),
    "圆领": ("圆领贴合颈部，穿脱方便", "简单的圆领舒适自然"),
    "连帽": ("连帽设计挡风又实用", "背后的帽子添了几分活力"),
    "高领": ("高领设计为颈部保暖", "柔软的高领在冬天格外贴心"),
    "V领": ("V领露出锁骨，显得脖子修长", "V领设计拉长了颈部线条"),
    "方领": ("方领露出漂亮的锁骨", "大方的方领带来法式风情"),
    "灯笼袖": ("蓬松的灯笼袖遮住手臂的小缺点", "灯笼袖设计优雅别致"),
    "泡泡袖": ("可爱的泡泡袖减龄十足", "泡泡袖让肩部更有型"),
    "长袖": ("长袖设计早晚穿着不怕凉", "利落的长袖可以随意挽起"),
    "口袋": ("两侧的口袋方便放手机", "实用的口袋也是一种装饰"),
    "抽绳": ("抽绳可以调节松紧", "垂下的抽绳很有活力"),
    "螺纹": ("螺纹收口不易变形", "袖口的螺纹贴合手腕"),
    "拼接": ("拼接的设计富有层次", "巧妙的拼接打破了单调"),
    "纽扣": ("一排纽扣精致整齐", "圆圆的纽扣成了点睛之笔"),
    "拉链": ("顺滑的拉链穿脱方便", "金属拉链利落有型"),
    "腰带": ("腰带一系，腰身立刻显现", "同色的腰带可以随意打结"),
    "A字": ("A字裙摆遮住大腿的赘肉", "A字裙型走起路来很轻盈"),
    "百褶": ("整齐的百褶随着脚步摆动", "百褶设计灵动又显高"),
    "直筒": ("直筒裙型简洁利落", "直筒的轮廓不挑身材"),
    "鱼尾": ("鱼尾裙型尽显女人味", "鱼尾下摆摇曳生姿"),
    "高腰": ("高腰设计拉长了双腿", "高腰线让身材比例更好"),
    "系带": ("腰间的系带可以调节松紧", "系带打成蝴蝶结，格外别致"),
    "松紧腰": ("松紧腰穿着不勒肚子", "腰部采用松紧设计，舒适自在"),
    "开叉": ("下摆开叉，行走自如", "侧边的开叉露出修长的小腿"),
    "荷叶边": ("荷叶边下摆轻轻摇曳", "层层荷叶边浪漫可人"),
    "长裤": ("长裤的长度刚好盖住脚踝", "长裤设计让双腿更显修长"),
    "九分裤": ("九分的长度露出纤细的脚踝", "九分裤长清爽利落"),
    "短裤": ("短裤的长度清凉又活泼", "短款设计适合夏天"),
}
OPENING = [
    "这{m}{noun}很适合换季的时候穿。",
    "想穿出好气质，不妨试试这{m}{noun}。",
    "衣柜里怎么能少了这样一{m}{noun}。",
    "这{m}{noun}一上身就让人喜欢。",
    "出门不知道穿什么，就选这{m}{noun}吧。",
]
CLOSING = {
    "上衣": ["搭配一条牛仔裤就很好看。", "配上半身裙也很合适。", "里外搭配都不出错。"],
    "裙": ["配一双小白鞋就可以出门了。", "约会逛街都很合适。", "搭一件小外套更有气质。"],
    "裤": ["搭配简单的衬衫就很好看。", "配什么鞋子都不出错。", "日常出行都很合适。"],
}


def make(drawn: random.Random) -> tuple[Hashable, Any]:
    """A garment's features and advertisement; the set of features makes the row."""
    kind, named, measure, garments = drawn.choice(GARMENTS)
    noun = drawn.choice(list(garments))
    can = {**COMMON, **garments[noun]}
    names = drawn.sample(list(can), drawn.randint(4, 6))
    chosen = [(name, drawn.choice(can[name])) for name in names]
    said = [drawn.choice(CLAUSES[value]) for _, value in chosen]
    opening = pick(drawn, OPENING).format(m=measure, noun=noun)
    middle = "".join(
        clause + ("。" if number % 2 or number == len(said) - 1 else "，")
        for number, clause in enumerate(said)
    )
    feature = [("类型", kind), *chosen]
    feature.insert(drawn.randint(1, len(feature)), (named, noun))
    record = {"feature": feature, "desc": opening + middle + pick(drawn, CLOSING[kind])}
    return frozenset(feature), record


def main(out: Path = HERE) -> None:
    """Write the three files below `out`/adgen."""
    write_jsonl(out / "adgen", draw("adgen", make))


if __name__ == "__main__":
    main()
