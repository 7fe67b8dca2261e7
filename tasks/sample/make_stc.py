"""Make the sample data of STC (short-text conversation) that ships with cpm-tune.

A post is one of the frames of a topic with drawn words; its two responses are frames of the same
kind of post and often take up its words. Training has 300 posts with two responses each, valid 150
and test 200; words are separated by spaces, as in STC.json. Every sentence was composed for this
project. Code: Apache-2.0 with the project; data: CC0-1.0. Scores on it are NOT comparable with
scores on the real STC.

Regenerate: `python tasks/sample/make_stc.py`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from frames import pick, some, values
from splits import HERE, draw

SIZES = {"train": 300, "valid": 150, "test": 200}
WHEN = ["今天", "昨晚", "刚才", "周末", "今天 下午", "昨天"]
CITY = ["北京", "上海", "成都", "西安", "杭州", "青岛", "厦门", "昆明", "重庆", "南京"]
DISH = ["火锅", "饺子", "烤鱼", "红烧肉", "凉面", "小 龙虾", "麻辣烫", "酸菜鱼", "羊肉串", "馄饨"]
SPORT = ["跑步", "游泳", "打 羽毛球", "打 篮球", "爬山", "骑车", "打 乒乓球", "跳绳"]
BOOK = ["小说", "散文集", "人物 传记", "历史 书", "科幻 小说", "推理 小说", "诗集", "绘本"]
PET = ["小猫", "小狗", "兔子", "仓鼠"]
SUBJECT = ["数学", "英语", "物理", "化学", "历史", "地理", "语文", "生物"]
SHOW = [
    ("电视剧", "部"),
    ("电影", "部"),
    ("纪录片", "部"),
    ("动画片", "部"),
    ("话剧", "场"),
    ("演唱会", "场"),
]
INSTRUMENT = ["吉他", "钢琴", "古筝", "小提琴", "口琴", "二胡"]
FLOWER = ["月季", "茉莉", "兰花", "多肉", "绿萝", "栀子花", "向日葵"]
GADGET = ["手机", "耳机", "相机", "电脑", "键盘", "手表"]
FRUIT = ["西瓜", "葡萄", "草莓", "芒果", "石榴", "樱桃", "荔枝"]

# slots, posts, responses
TALKS: list[tuple[dict[str, Any], list[str], list[str]]] = [
    (
        {"dish": DISH, "when": WHEN, "mate": ["同事", "室友", "爸妈", "老 同学", "女朋友"]},
        [
            "{when} 和 {mate} 一起 去 吃 了 {dish} ， 太 满足 了 ！",
            "{when} 自己 在家 做 了 {dish} ， 没想到 这么 好吃 。",
            "好久 没 吃 {dish} 了 ， {when} 终于 吃 上 了 。",
        ],
        [
            "看得 我 也 想 吃 {dish} 了 。",
            "{dish} 是 我 的 最爱 ！",
            "下次 吃 {dish} 记得 叫 上 我 。",
            "还 没 吃饭 的 我 看 饿 了 。",
            "有 照片 吗 ？ 让 我 也 看看 。",
        ],
    ),
    (
        {"dish": DISH, "city": CITY},
        [
            "求 推荐 ， {city} 哪里 的 {dish} 最 好吃 ？",
            "刚 到 {city} ， 想 找 一家 好吃 的 {dish} 店 。",
        ],
        [
            "我 在 {city} 住 过 ， 巷子 里 的 小店 最 地道 。",
            "跟着 本地人 走 准 没错 。",
            "老城区 的 {dish} 又 便宜 又 好吃 。",
            "同 求 ， 我 下 个 月 也 要 去 {city} 。",
        ],
    ),
    (
        {"city": CITY, "n": ["三", "四", "五"], "month": ["五月", "七月", "十月", "寒假"]},
        [
            "{month} 想 去 {city} 玩 {n} 天 ， 大家 有 什么 建议 吗 ？",
            "计划 {month} 去 {city} 旅行 ， 已经 开始 激动 了 。",
        ],
        [
            "{city} 很 不错 ， 记得 提前 订 好 房间 。",
            "{month} 人 很 多 ， 要 早点 买票 。",
            "羡慕 ， 我 也 想 去 {city} 。",
            "去 {city} 一定 要 尝尝 当地 的 小吃 。",
            "多 拍 点 照片 回来 分享 。",
        ],
    ),
    (
        {"city": CITY, "sky": ["下 大雨", "降温", "刮 大风", "起 大雾"]},
        [
            "{city} 又 {sky} 了 ， 出门 真 不 方便 。",
            "一 觉 醒来 发现 {city} 在 {sky} 。",
            "说好 的 晴天 呢 ？ {city} 居然 {sky} 了 。",
        ],
        [
            "出门 记得 注意 安全 。",
            "我们 这里 也 在 {sky} 。",
            "这种 天气 最 适合 在家 睡觉 。",
            "{city} 的 天气 总是 说变就变 。",
            "多 穿点 衣服 ， 别 感冒 了 。",
        ],
    ),
    (
        {"sport": SPORT, "n": ["三", "五", "七", "十", "十五", "三十"]},
        [
            "坚持 {sport} 第 {n} 天 ， 给 自己 加油 ！",
            "已经 连续 {sport} {n} 天 了 ， 感觉 整个 人 都 精神 了 。",
        ],
        [
            "坚持 就是 胜利 ！",
            "好 厉害 ， 我 {sport} 从来 没 超过 三 天 。",
            "{n} 天 ？ 向 你 学习 ！",
            "{sport} 之后 记得 拉伸 。",
            "瘦 了 没有 ？",
        ],
    ),
    (
        {"sport": SPORT, "when": ["明天 早上", "周六 下午", "下班 以后", "周日 上午"]},
        [
            "{when} 有 没有 人 一起 去 {sport} ？",
            "{when} 想 去 {sport} ， 一个 人 好 无聊 。",
        ],
        [
            "算 我 一个 ！",
            "{when} 我 有空 ， 在 哪里 集合 ？",
            "我 不太 会 {sport} ， 可以 教 我 吗 ？",
            "{when} 要 加班 ， 去 不了 了 。",
        ],
    ),
    (
        {"book": BOOK, "when": WHEN},
        [
            "{when} 读 完 了 一本 {book} ， 心里 久久 不能 平静 。",
            "{when} 在 书店 看中 一本 {book} ， 马上 买 了 下来 。",
        ],
        [
            "书名 是 什么 ？ 我 也 想 看 。",
            "我 也 喜欢 看 {book} 。",
            "好 的 {book} 值得 读 第二 遍 。",
            "现在 能 静 下 心 看 {book} 的 人 不 多 了 。",
        ],
    ),
    (
        {"book": BOOK, "when": ["周末", "假期", "睡 前", "出差 路上"]},
        ["{when} 想 看 {book} ， 大家 有 好 的 推荐 吗 ？", "有 适合 {when} 看 的 {book} 吗 ？"],
        [
            "同 求 ， 我 也 想 找 一本 {book} 看看 。",
            "去 图书馆 转转 吧 ， {book} 有 整整 一 排 。",
            "{when} 看 {book} 最 合适 了 。",
            "可以 看看 排行榜 上 的 {book} 。",
        ],
    ),
    (
        {"pet": PET, "deed": ["打翻 了 水杯", "钻进 了 衣柜", "躲 到 床 底下", "睡 了 一整天"]},
        [
            "我家 的 {pet} {deed} ， 真 拿 它 没 办法 。",
            "回到 家 一看 ， {pet} 又 {deed} 。",
        ],
        [
            "哈哈 ， {pet} 都 这样 。",
            "太 可爱 了 ， 好 想 养 一只 {pet} 。",
            "我家 {pet} 也 {deed} 过 。",
            "它 一定 是 在 等 你 回家 。",
        ],
    ),
    (
        {"pet": PET, "age": ["三 个 月", "半岁", "一 岁", "两 岁"]},
        [
            "捡 到 一只 {age} 大 的 {pet} ， 有 人 愿意 收养 吗 ？",
            "路边 发现 一只 {age} 大 的 {pet} ， 不 知道 是 谁家 的 。",
        ],
        [
            "好 可怜 的 {pet} ， 要 好好 照顾 它 。",
            "先 带 {pet} 去 医院 检查 一下 吧 。",
            "可惜 家里 人 不 让 养 {pet} 。",
        ],
    ),
    (
        {"pet": PET, "color": ["白色", "黑色", "灰色", "黄色"], "n": ["一", "两"]},
        ["家里 新 来 了 {n} 只 {color} 的 {pet} ， 求 起名 。"],
        [
            "叫 豆豆 怎么样 ？",
            "{color} 的 {pet} ， 就 叫 汤圆 吧 。",
            "好 想 摸摸 你家 的 {pet} 。",
            "名字 越 土 越 好 养 。",
        ],
    ),
    (
        {"subject": SUBJECT, "when": ["明天", "后天", "下周", "下午"]},
        [
            "{when} 就要 考 {subject} 了 ， 什么 都 没 复习 。",
            "{when} {subject} 考试 ， 紧张 得 睡 不 着 。",
            "为了 {when} 的 {subject} 考试 ， 今晚 不 睡 了 。",
        ],
        [
            "加油 ， 考试 顺利 ！",
            "别 紧张 ， {subject} 没有 那么 难 。",
            "我 {when} 也 考 {subject} ， 一起 努力 。",
            "早点 休息 ， 睡 好 了 才 能 考 好 。",
            "现在 开始 复习 {subject} 还 来得及 。",
        ],
    ),
    (
        {"subject": SUBJECT, "score": ["八十五", "九十二", "九十八", "满", "九十"]},
        [
            "{subject} 考 了 {score} 分 ， 开心 ！",
            "没想到 这次 {subject} 居然 得 了 {score} 分 。",
        ],
        [
            "恭喜 恭喜 ！ {score} 分 太 棒 了 。",
            "请客 请客 ！",
            "{subject} 学霸 ， 教教 我 吧 。",
            "努力 总会 有 回报 。",
        ],
    ),
    (
        {"show+m": SHOW, "when": WHEN, "mood": ["感动", "震撼", "有趣", "失望", "无聊"]},
        [
            "{when} 看 了 一 {m} {show} ， 觉得 很 {mood} 。",
            "朋友 推荐 的 {show} 看 完 了 ， 只 觉得 {mood} 。",
        ],
        [
            "是 哪 一 {m} {show} ？",
            "我 看 的 时候 也 觉得 很 {mood} 。",
            "每个 人 的 感受 不 一样 。",
            "最近 没什么 好看 的 {show} 。",
        ],
    ),
    (
        {"thing": INSTRUMENT, "n": ["一 个 月", "半年", "一年", "三 年"]},
        [
            "学 {thing} {n} 了 ， 还是 练 不好 一 首 曲子 。",
            "练 了 {n} 的 {thing} ， 手 还是 跟 不 上 节奏 。",
        ],
        [
            "{thing} 要 慢慢 练 ， 不要 着急 。",
            "才 {n} ， 已经 很 不错 了 。",
            "会 {thing} 的 人 真 让 人 羡慕 。",
            "什么 时候 让 我们 听听 ？",
        ],
    ),
    (
        {"flower": FLOWER, "place": ["阳台", "窗台", "院子", "办公桌"]},
        [
            "养 在 {place} 的 {flower} 发 新芽 了 。",
            "买 了 一 盆 {flower} 放在 {place} ， 心情 都 变 好 了 。",
        ],
        [
            "{flower} 好 养 吗 ？",
            "看 着 绿叶 ， 心情 就 会 好 起来 。",
            "我家 的 {flower} 也 养 在 {place} 。",
            "养花 的 人 都 很 有 耐心 。",
        ],
    ),
    (
        {"flower": FLOWER, "bad": ["叶子 黄 了", "叶子 发软", "长 了 小虫", "开始 掉 叶子"]},
        ["我 养 的 {flower} {bad} ， 怎么办 ？", "谁 知道 {flower} {bad} 是 什么 原因 ？"],
        [
            "少 浇 点 水 ， 多 晒 晒 太阳 。",
            "我家 的 {flower} 也 是 这样 。",
            "可能 该 换 一 个 大 一点 的 花盆 了 。",
            "拍 张 照片 去 花店 问问 吧 。",
        ],
    ),
    (
        {"gadget": GADGET, "when": WHEN},
        ["{when} {gadget} 摔坏 了 ， 心疼 。", "用 了 三 年 的 {gadget} {when} 突然 坏 了 。"],
        [
            "还 能 修好 吗 ？",
            "正好 换 一 个 新 {gadget} 。",
            "先 问问 还 在 不 在 保修期 。",
            "心疼 你 的 {gadget} 。",
        ],
    ),
    (
        {"gadget": GADGET, "color": ["白色", "黑色", "银色", "蓝色"]},
        [
            "新 买 的 {color} {gadget} 到 了 ， 好 喜欢 。",
            "纠结 要 不要 买 那 款 {color} 的 {gadget} 。",
        ],
        [
            "{color} 好看 ！",
            "喜欢 就 买 吧 。",
            "这 款 {gadget} 多少 钱 ？",
            "我 觉得 还是 别 的 颜色 更 耐看 。",
        ],
    ),
    (
        {"fruit": FRUIT, "place": ["楼下", "菜市场", "超市", "网上"]},
        [
            "{place} 买 的 {fruit} 特别 甜 。",
            "在 {place} 买 了 一 箱 {fruit} ， 一个 人 吃 不 完 。",
        ],
        [
            "分 我 一点 {fruit} 吧 。",
            "现在 正是 吃 {fruit} 的 季节 。",
            "{place} 的 {fruit} 我 也 买 过 。",
            "放 冰箱 里 可以 多 放 几 天 。",
        ],
    ),
    (
        {"n": ["九 点", "十 点", "十一 点", "凌晨"], "job": ["方案", "报告", "论文", "代码"]},
        [
            "加班 改 {job} 改 到 {n} ， 刚刚 回到 家 。",
            "都 {n} 了 ， {job} 还 没 写完 。",
        ],
        [
            "辛苦 了 ， 早点 休息 。",
            "我 也 在 写 {job} ， 一起 加油 。",
            "身体 要紧 ， {job} 明天 再 写 吧 。",
            "你 也 太 拼 了 。",
        ],
    ),
    (
        {"ill": ["感冒", "牙疼", "头疼", "嗓子 疼", "胃疼"], "n": ["两", "三", "四"]},
        [
            "{ill} {n} 天 了 ， 难受 得 吃 不 下 饭 。",
            "{ill} 了 {n} 天 ， 一个 人 在 外面 特别 想 家 。",
        ],
        [
            "多 喝 热水 ， 好好 休息 。",
            "{ill} 最 折磨 人 了 ， 快 去 看看 医生 吧 。",
            "早日 康复 ！",
            "我 上周 也 {ill} ， 吃 了 药 就 好 了 。",
        ],
    ),
    (
        {
            "who": ["妈妈", "爸爸", "奶奶", "外婆", "姐姐"],
            "gift": ["围巾", "毛衣", "腊肉", "棉鞋", "家乡 特产", "红枣"],
        },
        ["收到 {who} 寄来 的 {gift} ， 眼泪 都 出来 了 。", "{who} 又 给 我 寄 了 {gift} 。"],
        [
            "{who} 真 好 ！",
            "家里 寄来 的 {gift} 就是 不 一样 。",
            "有 时间 多 回家 看看 {who} 。",
            "好 温暖 ， 我 也 想 家 了 。",
        ],
    ),
    (
        {
            "who": ["妈妈", "爸爸", "奶奶", "外婆", "姐姐", "室友"],
            "gift": ["围巾", "蛋糕", "手表", "一束 花", "茶杯", "耳机"],
        },
        ["{who} 快 过 生日 了 ， 送 {gift} 合适 吗 ？", "打算 送 {who} {gift} 当 生日 礼物 。"],
        [
            "{gift} 很 好 ， {who} 会 喜欢 的 。",
            "有 心意 就 好 。",
            "我 去年 送 的 也 是 {gift} 。",
            "祝 {who} 生日 快乐 ！",
        ],
    ),
]


def make(drawn: random.Random) -> tuple[Hashable, Any]:
    """A post with two different responses, as two pairs; the post makes the row."""
    slots, posts, responses = drawn.choice(TALKS)
    known = values(drawn, slots)
    post = pick(drawn, posts).format(**known)
    return post, [[post, response.format(**known)] for response in some(drawn, responses, 2)]


def main(out: Path = HERE) -> None:
    """Write STC.json and STC_test.json below `out`/stc."""
    splits = {
        name: [pair for two in pairs for pair in two]
        for name, pairs in draw("stc", make, SIZES).items()
    }
    folder = out / "stc"
    folder.mkdir(parents=True, exist_ok=True)
    for file, names in (("STC.json", ("train", "valid")), ("STC_test.json", ("test",))):
        text = json.dumps({name: splits[name] for name in names}, ensure_ascii=False, indent=0)
        (folder / file).write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
