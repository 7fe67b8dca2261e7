"""Make the sample data of LCSTS (headlines of short news) that ships with cpm-tune.

An event (its figures drawn, its place invented) is told in a lead, which names it, and two details,
which hold other figures; in a third of the texts a sentence of background stands before the lead.
The summary is one of the event's headlines. So neither the beginning of the text nor its first
number is the answer. Every sentence was composed for this project. Code: Apache-2.0 with the
project; data: CC0-1.0. Scores on it are NOT comparable with scores on the real LCSTS.

Regenerate: `python tasks/sample/make_lcsts.py`.
"""

from __future__ import annotations

import random
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from frames import pick, some, values
from splits import HERE, draw, write_jsonl

CITY = ["云河", "松泉", "东岭", "银溪", "晴川", "石桥", "金谷", "明塘"]
CITY += ["青石", "白杨", "柳湾", "长亭", "竹山", "沙洲"]
PAST = ["昨天", "今天上午", "本周一", "上周五", "日前", "3月8日", "6月1日", "9月20日"]
FUTURE = ["本周六", "下周一", "下月1日", "10月1日", "12月15日"]
LINES = [(km, km // 2 + more) for km in range(12, 58) for more in (0, 2, 5)]
PAPER = ["（{city}晚报）", "（{city}日报）", "（{city}电视台）", "", "", ""]
OPENING = ["", "", "本报讯，", "记者获悉，", "据本地媒体报道，"]

# slots, leads, background, details, headlines
FRAMES: list[tuple[dict[str, Any], list[str], str, list[str], list[str]]] = [
    (
        {"n": range(1, 10), "km+stations": LINES, "gap": range(3, 9)},
        [
            "{city}地铁{n}号线{past}正式开通运营，线路全长{km}公里，共设{stations}座车站。",
            "经过三年多的建设，全长{km}公里的{city}地铁{n}号线{past}开通运营。",
        ],
        "早晚高峰时段，市区主干道一直十分拥堵。",
        [
            "首班车早上六点发车，末班车晚上十点半收车。",
            "高峰时段的行车间隔为{gap}分钟。",
            "沿线居民到市中心的时间将缩短一半左右。",
        ],
        ["{city}地铁{n}号线开通，全长{km}公里", "全长{km}公里，{city}地铁{n}号线开通"],
    ),
    (
        {
            "theme+objects": [
                ("纸上山河", "古地图"),
                ("灯火人间", "老式灯具"),
                ("草木有声", "植物标本"),
                ("瓷韵千年", "古代瓷器"),
                ("旧书新读", "古籍"),
                ("泥土的记忆", "陶器"),
            ],
            "count": range(60, 320, 10),
            "months": ["两", "三", "四", "六"],
        },
        [
            "{city}市博物馆{past}推出“{theme}”特展，共展出{count}件{objects}。",
            "“{theme}”特展{past}在{city}市博物馆开幕，{count}件{objects}与观众见面。",
        ],
        "近年来，走进展厅成了不少年轻人周末的选择。",
        [
            "展览将持续{months}个月，观众可以免费参观。",
            "约有三成展品是第一次公开展出。",
            "馆方提醒，参观前一天须在网上预约。",
        ],
        ["{city}博物馆推出“{theme}”特展", "{city}博物馆展出{count}件{objects}"],
    ),
    (
        {
            "kind+advice": [
                ("暴雨", "市民出门请带好雨具，尽量避开低洼路段"),
                ("大雾", "司机应打开雾灯，减速慢行"),
                ("大风", "请及时收好阳台上的花盆等物品"),
                ("高温", "午后应减少户外活动，注意补充水分"),
                ("寒潮", "老人和孩子要及时添加衣物"),
            ],
            "level": ["黄色", "橙色"],
            "hours": [6, 12, 24],
            "spots": range(2, 9),
        },
        [
            "{city}市气象台{past}发布{kind}{level}预警信号，预计未来{hours}小时影响全境。",
            "市民请注意，{city}市气象台{past}发布{kind}{level}预警，有效时间为{hours}小时。",
        ],
        "最近一段时间，各地天气变化频繁。",
        [
            "气象专家提醒，{advice}。",
            "目前已有{spots}个景区暂停开放。",
            "学校和工地也接到了做好防范的通知。",
        ],
        ["{city}发布{kind}{level}预警", "{city}气象台发布{kind}{level}预警信号"],
    ),
    (
        {"n": range(3000, 30000, 500), "ages": range(60, 82), "minutes": range(12, 40)},
        [
            "{city}马拉松{past}鸣枪开跑，来自各地的{n}名选手参加了比赛。",
            "{past}，{n}名跑步爱好者参加了{city}马拉松。",
        ],
        "跑步正成为越来越多人的爱好。",
        [
            "男子组冠军的成绩是两小时{minutes}分。",
            "年龄最大的选手今年{ages}岁，顺利跑完了全程。",
            "沿途有上千名志愿者为选手递水加油。",
        ],
        ["{city}马拉松开跑，{n}人参赛", "{n}名选手参加{city}马拉松"],
    ),
    (
        {
            "food": ["黄瓜", "西红柿", "土豆", "大白菜", "鸡蛋", "猪肉", "苹果", "白萝卜"],
            "way+why": [
                ("下降", "近期产地供应充足"),
                ("上涨", "近期产地供应偏紧"),
            ],
            "rate": range(3, 28),
            "stalls": range(20, 60),
        },
        [
            "{city}市农贸市场的数据显示，本周{food}的平均价格比上周{way}{rate}%。",
            "{past}的监测结果显示，{city}市的{food}价格一周{way}了{rate}%。",
        ],
        "菜篮子里的价格，一头连着农户，一头连着居民。",
        [
            "市场负责人说，{why}。",
            "预计下周的价格将保持平稳。",
            "监测人员走访了{stalls}个摊位。",
        ],
        ["{city}{food}价格一周{way}{rate}%"],
    ),
    (
        {"books": range(30, 200, 5), "seats": range(400, 3000, 100), "rooms": range(3, 9)},
        [
            "{city}市图书馆新馆{past}开馆，藏书{books}万册，设有阅览座位{seats}个。",
            "藏书{books}万册的{city}市图书馆新馆{past}向市民开放。",
        ],
        "老图书馆建成多年，座位早已不够用。",
        [
            "新馆还为孩子们准备了{rooms}间绘本阅读室。",
            "市民凭身份证就可以免费借书。",
            "开馆第一天，门口早早排起了长队。",
        ],
        ["{city}图书馆新馆开馆，藏书{books}万册"],
    ),
    (
        {
            "product+use": [
                ("扫地机器人", "能够自动避开拖鞋和电线"),
                ("折叠自行车", "折叠以后可以带上地铁"),
                ("儿童手表", "充一次电可以用一个星期"),
                ("空气净化器", "夜间运行时几乎听不到声音"),
                ("电子阅读器", "在阳光下也能看清文字"),
                ("智能台灯", "会随着天色自动调节亮度"),
            ],
            "price": range(199, 2999, 100),
            "orders": range(2, 30),
        },
        [
            "{city}市一家科技公司{past}发布新款{product}，售价{price}元起。",
            "{past}，{city}市一家科技公司带来了新款{product}，起售价为{price}元。",
        ],
        "一批本地企业正在加快研发新产品。",
        [
            "据介绍，这款产品{use}。",
            "网上预订开始一小时，订单就超过了{orders}000份。",
            "产品将从下个月开始陆续发货。",
        ],
        ["{city}一公司发布新款{product}", "{city}一公司新款{product}{price}元起售"],
    ),
    (
        {
            "school": ["第一", "第二", "第三", "第四", "第五", "第八"],
            "course": ["木工", "烹饪", "天文", "摄影", "陶艺", "编程", "园艺", "剪纸"],
            "students": range(24, 120, 4),
            "teachers": range(2, 6),
        },
        [
            "{city}市{school}中学{past}开设了{course}选修课，首批有{students}名学生报名。",
            "新学期开学，{city}市{school}中学把{course}请进课堂，{students}名学生选了这门课。",
        ],
        "怎样让课后的时间更有意思，不少学校都在想办法。",
        [
            "学校为此聘请了{teachers}位校外老师。",
            "课程安排在每周五下午，不留作业。",
            "有家长说，孩子回家后话都变多了。",
        ],
        ["{city}{school}中学开设{course}选修课"],
    ),
    (
        {
            "animal": ["小猫", "小狗", "山羊", "猫头鹰", "刺猬", "白鹭"],
            "where": ["空调外机后面", "下水道里", "废井里", "树杈上", "铁丝网上", "桥墩下"],
            "minutes": range(15, 90, 5),
            "calls": range(2, 7),
        },
        [
            "{past}，{city}市消防员救出了一只被困在{where}的{animal}。",
            "一只{animal}被困在{where}，{city}市消防员{past}赶到现场把它救了出来。",
        ],
        "消防员的工作不只是灭火。",
        [
            "整个过程用了{minutes}分钟。",
            "附近居民连续{calls}天听到叫声，于是报了警。",
            "经检查，它没有受伤，已经被送到安全的地方。",
        ],
        ["{city}消防员救出被困{animal}", "{animal}被困，{city}消防员成功救出"],
    ),
    (
        {
            "n": range(2, 190),
            "stop+other": [
                ("科技馆", "滨河公园"),
                ("第二医院", "体育中心"),
                ("火车东站", "人才市场"),
                ("新华书店", "大学城"),
            ],
            "minutes": range(6, 16),
        },
        [
            "{city}市公交公司{past}宣布，{n}路公交车{future}起增设{stop}和{other}两站。",
            "{future}起，{city}市{n}路公交车将增设{stop}、{other}两个站点。",
        ],
        "不少乘客曾经反映附近没有公交站。",
        [
            "发车间隔仍为{minutes}分钟。",
            "票价保持两元不变。",
            "站牌将在两天之内全部更换完毕。",
        ],
        ["{city}{n}路公交车{future}起增设两站"],
    ),
    (
        {
            "group+habit": [
                ("大学生", "每天运动不到半小时"),
                ("上班族", "经常在外面吃午饭"),
                ("家长", "会陪孩子一起读书"),
                ("老人", "已经学会用手机付款"),
                ("中学生", "周末睡不够八小时"),
                ("年轻人", "旅行前会先做攻略"),
            ],
            "n": range(800, 5000, 100),
            "rate": range(51, 89),
            "less": range(5, 20),
        },
        [
            "{city}市一项针对{n}名{group}的调查显示，{rate}%的受访者{habit}。",
            "{past}公布的一项调查结果显示，{city}市有{rate}%的{group}{habit}。",
        ],
        "生活习惯的变化，往往藏在数字里。",
        [
            "另有{less}%的人说很少留意这个问题。",
            "调查历时两个月，采用网上问卷的方式。",
            "专家建议，好习惯要从小事做起。",
        ],
        ["调查显示{city}{rate}%的{group}{habit}"],
    ),
    (
        {
            "finding": [
                "饭后散步有助于睡眠",
                "养花能缓解压力",
                "睡前看手机影响记忆",
                "常吃早餐的学生更专心",
                "多听音乐有助于恢复体力",
                "午睡半小时能提高效率",
            ],
            "people": range(120, 2000, 40),
            "years": ["两", "三", "五"],
        },
        [
            "{city}大学的研究人员{past}公布了一项研究成果：{finding}。",
            "{finding}，这是{city}大学的研究人员{past}公布的结论。",
        ],
        "健康话题一直受到大家的关注。",
        [
            "研究跟踪了{people}名志愿者，历时{years}年。",
            "研究人员说，具体原因还需要进一步分析。",
            "也有专家提醒，结果因人而异。",
        ],
        ["研究发现：{finding}", "{city}大学研究发现{finding}"],
    ),
    (
        {
            "sport+score": [
                ("足球", "2比1"),
                ("足球", "3比0"),
                ("足球", "1比0"),
                ("篮球", "98比87"),
                ("篮球", "76比70"),
                ("排球", "3比1"),
                ("排球", "3比2"),
            ],
            "rival": ["海港", "北山", "平湖", "红叶", "长风"],
            "wins": range(2, 15),
            "crowd": range(2, 20),
        },
        [
            "{past}进行的全省{sport}联赛中，{city}队以{score}战胜{rival}队。",
            "全省{sport}联赛{past}继续进行，{city}队{score}击败{rival}队。",
        ],
        "本赛季的争夺十分激烈。",
        [
            "这是球队本赛季取得的第{wins}场胜利。",
            "现场来了约{crowd}000名球迷。",
            "赛后主教练称赞了年轻球员的表现。",
        ],
        ["全省{sport}联赛：{city}队{score}胜{rival}队", "{city}队{score}战胜{rival}队"],
    ),
    (
        {
            "road+other": [
                ("人民路", "解放路"),
                ("滨江大道", "环城路"),
                ("文化街", "建设路"),
                ("北门大桥", "南门大桥"),
            ],
            "work": ["更换地下水管", "修补路面", "改造路灯", "铺设燃气管道"],
            "days": range(3, 46),
            "lines": range(2, 9),
        },
        [
            "因{work}，{city}市{road}{future}起封闭施工，预计需要{days}天。",
            "{city}市交通部门{past}通报，{road}将因{work}从{future}起封闭{days}天。",
        ],
        "部分道路使用多年，需要维修。",
        [
            "过往车辆请绕行{other}。",
            "途经这里的{lines}条公交线路将临时改道。",
            "施工时间为每天早上七点到晚上九点。",
        ],
        ["{city}{road}{future}起封闭{days}天"],
    ),
    (
        {
            "holiday": ["春节", "清明节", "劳动节", "端午节", "中秋节", "国庆节"],
            "n": range(20, 400, 3),
            "rate": range(4, 40),
            "money": range(2, 30),
            "spot": ["古城墙", "湿地公园", "老街夜市", "植物园", "海洋馆"],
        },
        [
            "{holiday}假期，{city}市共接待游客{n}万人次，比去年增长{rate}%。",
            "{city}市文旅部门公布，{holiday}假期全市迎来游客{n}万人次。",
        ],
        "短途游成了许多家庭的首选。",
        [
            "{spot}是人气最高的去处。",
            "旅游收入达到{money}亿元。",
            "不少民宿提前一周就已经订满。",
        ],
        ["{city}{holiday}接待游客{n}万人次"],
    ),
    (
        {
            "group": ["应届毕业生", "退役军人", "返乡农民", "护理人员", "软件人才"],
            "firms": range(30, 200, 5),
            "jobs": range(800, 6000, 200),
            "hours": ["五", "六", "八"],
        },
        [
            "{past}，{city}市举办{group}专场招聘会，{firms}家企业提供了{jobs}个岗位。",
            "{city}市{past}举办的{group}专场招聘会上，共有{jobs}个岗位虚位以待。",
        ],
        "又到了求职的旺季。",
        [
            "招聘会持续了{hours}个小时。",
            "现场还有老师免费指导怎样写简历。",
            "当天有近三成求职者达成了意向。",
        ],
        ["{city}{group}招聘会提供{jobs}个岗位"],
    ),
]


def make(drawn: random.Random) -> tuple[Hashable, Any]:
    """A text and its headline; the event with its figures makes the row."""
    slots, leads, background, details, headlines = drawn.choice(FRAMES)
    known = values(drawn, {"city": CITY, "past": PAST, "future": FUTURE, **slots})
    before = background if drawn.random() < 0.35 else pick(drawn, OPENING)
    told = [before, pick(drawn, leads), *some(drawn, details, 2), pick(drawn, PAPER)]
    headline = pick(drawn, headlines).format(**known)
    return headline, {"text": "".join(told).format(**known), "summary": headline}


def main(out: Path = HERE) -> None:
    """Write the three files below `out`/lcsts."""
    write_jsonl(out / "lcsts", draw("lcsts", make))


if __name__ == "__main__":
    main()
