// Names that records have, in the page's language: capabilities, metrics, controls, settings, notes.
/** Capability: short in English, whole and short in Chinese. @type {Record<string, [string, string, string]>} */
const CAPABILITIES = {
  "word-sentence": ["Words and sentences", "词句级理解", "词句"],
  "discourse": ["Discourse", "篇章级理解", "篇章"],
  "information acquisition and question answering": ["Information and QA", "信息获取与问答", "信息与问答"],
  "language generation": ["Generation", "语言生成", "生成"],
  "conversational interaction": ["Conversation", "对话交互", "对话"],
  "multilingual": ["Multilingual", "多语言", "多语言"],
  "mathematical reasoning": ["Mathematics", "数学推理", "数学"],
  "language understanding": ["Understanding", "语言理解", "理解"],
  "not known": ["Not known", "未知", "未知"],
};
/** The indices in Chinese, with their rules; the board has them in English. @type {Record<string, [string, string]>} */
const RULES_ZH = {
  mean: ["各数据集的平均分", "先对数据集取均值得到任务，再对任务取均值得到能力，最后对能力取均值；只对数据集齐全的行计算。"],
  "normalised-mean": ["CUGE lite，归一化均值", "每个数据集为 100 × 得分 / 基线，先对数据集取均值得到任务，再对任务取均值得到能力，最后对能力取均值：CUGE 报告所述的算法。"],
  "ratio-of-sums": ["CUGE lite，总分之比", "100 × 得分之和 / 基线得分之和：CUGE 榜单实际采用的算法。"],
};

/** Metrics that are not named by a rule of `metricName`: English, Chinese. @type {Record<string, [string, string]>} */
const METRICS = {
  accuracy: ["accuracy", "准确率"], f1: ["F1", "F1"], precision: ["precision", "精确率"], recall: ["recall", "召回率"],
  exact_match: ["exact match", "完全匹配"], char_f1: ["F1 of characters", "字级 F1"], mrr: ["MRR", "MRR"],
  median_rank: ["median rank", "排名中位数"], equation_accuracy: ["accuracy of equations", "算式准确率"],
  perplexity: ["perplexity", "困惑度"], embedding_average: ["embedding average", "词向量平均相似度"],
  bleu_zh: ["BLEU (Chinese)", "BLEU（中文）"], bleu_13a: ["BLEU (13a)", "BLEU（13a）"],
};
/** @type {[RegExp, string, string][]} */
const METRIC_RULES = [
  [/^(relation|span|word|edit|m2)_(f1|f0\.5|precision|recall)$/, "{2} of {1}", "{1}{2}"],
  [/^rouge_(\w)_(char|jieba)_([fpr])$/, "ROUGE-{1} {3}, {2}", "ROUGE-{1} {3}（{2}）"],
  [/^rouge_(\w)_cpm2$/, "ROUGE-{1}, CPM-2's", "ROUGE-{1}（CPM-2 算法）"],
  [/^(bleu|distinct|ndcg)_(\d+)_cpm2$/, "{1}-{2}, CPM-2's", "{1}-{2}（CPM-2 算法）"],
  [/^(bleu|distinct)_(\d+)$/, "{1}-{2}", "{1}-{2}"],
  [/^ndcg_(\d+)$/, "NDCG@{1}", "NDCG@{1}"],
  [/^accuracy_at_(\d+)$/, "accuracy at {1}", "前 {1} 名准确率"],
];
/** @type {Record<string, [string, string]>} */
const METRIC_PARTS = {
  relation: ["relations", "关系"], span: ["spans", "片段"], word: ["words", "词"], edit: ["edits", "修改"], m2: ["edits (M2)", "修改（M2）"],
  f1: ["F1", " F1"], "f0.5": ["F0.5", " F0.5"], precision: ["precision", "精确率"], recall: ["recall", "召回率"],
  char: ["characters", "字"], jieba: ["words", "词"], f: ["F", "F"], p: ["precision", "精确率"], r: ["recall", "召回率"],
  l: ["L", "L"], bleu: ["BLEU", "BLEU"], distinct: ["distinct", "distinct"], ndcg: ["NDCG", "NDCG"],
};
/** Controls and shortcuts that need no model. @type {Record<string, [string, string]>} */
const SHORTCUTS = {
  length: ["length", "长度"], bag: ["bag of words", "词袋"], "option-alone": ["option alone", "仅看选项"], overlap: ["overlap", "字面重合"], nearest: ["nearest row", "最近邻"],
  "random control": ["random control", "随机对照"], "random weights": ["random weights", "随机权重"], "outside system": ["outside system", "外部系统"],
};
/** Settings by their dotted key, in Chinese; in English the key is shown. @type {Record<string, string>} */
const SETTINGS_ZH = {
  "train.lr": "学习率", "train.schedule": "学习率调度", "train.warmup": "预热步数", "train.warmup_share": "预热比例", "train.batch_size": "批大小",
  "train.epochs": "轮数", "train.max_steps": "最大步数", "train.eval_every": "评估间隔", "train.patience": "早停容忍次数", "train.dev_rows": "评估用行数",
  "train.weight_decay": "权重衰减", "train.clip": "梯度裁剪", "train.rows_share": "训练数据比例", "train.beta1": "beta1", "train.beta2": "beta2",
  "encode.max_length": "最大长度", "encode.pack": "序列打包", "encode.target": "答案位置",
  "decode.beams": "束宽", "decode.max_new_tokens": "最多生成长度", "decode.min_new_tokens": "最少生成长度", "decode.length_penalty": "长度惩罚", "decode.repetition_penalty": "重复惩罚",
  "decode.sample": "采样", "decode.temperature": "温度", "decode.top_k": "top-k", "decode.top_p": "top-p", "decode.n_best": "保留候选数",
  "delta.delta_type": "delta 方法", "delta.rank": "秩", "delta.lora_r": "秩", "delta.lora_alpha": "LoRA alpha", "delta.lora_dropout": "LoRA dropout", "delta.bottleneck_dim": "瓶颈维度",
  "delta.soft_token_num": "软提示长度", "delta.prefix_token_num": "前缀长度", "delta.modified_modules": "作用模块",
  "data.train": "训练数据", template: "模板", template_version: "模板版本", scoring: "打分规则", shots: "示例数", shot_choice: "示例选法", chat_template: "对话模板",
  metrics: "指标", precision: "精度", family: "模型族", tokenizer: "分词器",
};
/** Sentences of the board, in Chinese; {1}, {2} are the parts of the pattern. @type {[RegExp, string][]} */
const NOTES_ZH = [
  [/^sample data, not comparable with real results$/, "样本数据，不能与正式结果比较"],
  [/^sample data$/, "样本数据"],
  [/^limited to ([\d,]+) rows? a split$/, "每个划分限 {1} 行"],
  [/^bad rows skipped$/, "跳过了坏行"],
  [/^(train|dev|test) has ([\d,]+) rows, officially (.+)$/, "{1} 有 {2} 行，官方为 {3}"],
  [/^published results only: no run here has their prompt and scoring rule$/, "仅有已发表结果：此处没有相同提示与打分规则的运行"],
  [/^official data, published results$/, "官方数据，已发表结果"],
  [/^task version (.+)$/, "任务版本 {1}"],
  [/^template (.+)$/, "模板 {1}"],
  [/^scored by the rule of the template$/, "按模板自身的规则打分"],
  [/^scored by (.+)$/, "打分规则 {1}"],
  [/^prompts as they are$/, "提示不变"],
  [/^all rows of the given files$/, "所给文件的全部行"],
  [/^dev (\S+), test (\S+)$/, "开发集 {1}，测试集 {2}"],
  [/^metric (.+)$/, "指标 {1}"],
  [/^([\d,]+) shots?$/, "{1} 个示例"],
  [/^([\d,]+) nearest shots?$/, "{1} 个最近邻示例"],
  [/^chat template (.+)$/, "对话模板 {1}"],
  [/^numbers (.+), now (.+)$/, "算法版本 {1}，现为 {2}"],
  [/^not above the shortcut (.+) by more than its interval$/, "未以超过置信区间的幅度高于捷径 {1}"],
  [/^each run on one of the folds (\S+)$/, "每次运行使用各折之一（{1}）"],
  [/^folds ([\d, ]+) of (\d+), so it has no place$/, "{2} 折中仅有第 {1} 折，因此不参与名次"],
  [/^forgetting was measured on different texts: blank where not on (.+)$/, "遗忘在不同文本上测得，不是在 {1} 上测得的留空"],
  [/^of the runs \((.+)\) and Student's t over (\d+) seeds \((\d+) degrees? of freedom\)$/, "各次运行的区间（{1}）与 {2} 个种子的学生 t 区间（自由度 {3}）合成"],
  [/^of the runs \((.+)\) and Student's t over (\d+) folds \((\d+) degrees? of freedom\)$/, "各次运行的区间（{1}）与 {2} 折的学生 t 区间（自由度 {3}）合成"],
  [/^of the runs \((.+)\) and Student's t over (\d+) folds, seeds of each averaged first \((\d+) degrees? of freedom\)$/, "各次运行的区间（{1}）与 {2} 折（先对每折的种子取均值）的学生 t 区间（自由度 {3}）合成"],
  [/^one run: (.+)$/, "单次运行：{1}"],
  [/^Wilson$/, "威尔逊区间"],
  [/^percentile bootstrap over examples, ([\d,]+) resamples, seed (\d+)$/, "对样例的百分位自助法（重采样 {1} 次，种子 {2}）"],
  [/^normal, variance by the delete-one jackknife over examples$/, "正态近似，方差由逐一剔除样例的刀切法估计"],
  [/^as recorded$/, "按记录"],
  [/^always (.+), the most frequent in (\S+)$/, "始终回答 {1}，即 {2} 中最常见的答案"],
  [/^documents as they stand in the file$/, "文档按文件中的顺序"],
  [/^a decision tree on the texts' lengths$/, "基于文本长度的决策树"],
  [/^logistic regression on characters, words and their pairs$/, "基于字、词及其相邻组合的逻辑回归"],
  [/^a decision tree on how much the texts have in common$/, "基于文本重合程度的决策树"],
  [/^the label of the most similar row of train$/, "训练集中最相似一行的标签"],
  [/^a decision tree on each option's length among the row's$/, "基于各选项相对长度的决策树"],
  [/^logistic regression on each option's characters, words and pairs, without the question$/, "不看题目，基于各选项的字、词及其相邻组合的逻辑回归"],
  [/^a decision tree on how much each option has in common with the other texts$/, "基于各选项与其他文本重合程度的决策树"],
  [/^the option most like the right one of the most similar row of train$/, "与训练集中最相似一行的正确选项最接近的选项"],
  [/^([\d,]+) rows of train$/, "训练集 {1} 行"],
  [/^([\d,]+) of test$/, "测试集 {1} 行"],
  [/^(.+): unfinished, not in the table(.*)$/, "{1}：未完成，不在表中{2}"],
  [/^(.+): failed, not in the table(.*)$/, "{1}：失败，不在表中{2}"],
  [/^(.+): its test split has no answers, so no score$/, "{1}：测试集没有答案，因此没有得分"],
  [/^(.+): the same run as in another folder; counted once\.$/, "{1}：与另一文件夹中的运行相同，只计一次。"],
  [/^task '(.+)': no task file; give it with --include PATH\.$/, "任务 {1}：没有任务文件，请用 --include PATH 给出。"],
];

/** @param {Record<string, [string, string]>} names @param {string} name */
function named(names, name) {
  return names[name]?.[language === "zh" ? 1 : 0] ?? name;
}
/** @param {string} text @param {(i: number) => string} of */
function filled(text, of) {
  return text.replace(/\{(\d)\}/g, (_, i) => of(Number(i)));
}
/** @param {string} name */
function capabilityName(name) {
  return language === "zh" ? CAPABILITIES[name]?.[1] ?? name : name;
}
/** @param {string} name */
function shortCapability(name) {
  return CAPABILITIES[name]?.[language === "zh" ? 2 : 0] ?? name;
}
/** @param {string} name */
function indexName(name) {
  return (language === "zh" && RULES_ZH[name]?.[0]) || BOARD.indices[name]?.title || name;
}
/** @param {string} name */
function metricName(name) {
  for (const [pattern, english, chinese] of METRIC_RULES) {
    const found = pattern.exec(name);
    if (found) return filled(language === "zh" ? chinese : english, (i) => named(METRIC_PARTS, found[i]));
  }
  return named(METRICS, name);
}
/** A shortcut, or what a row is a control of. @param {string} name */
function shortcutName(name) {
  return named(SHORTCUTS, name);
}
/** A sentence of the board about data, protocol, an interval or a control. @param {string} note @param {boolean} [short] */
function noteText(note, short = false) {
  const text = short ? note.replace(/, not comparable with real results$/, "") : note;
  return language === "zh" ? chineseNote(text) : text;
}
/** A note in Chinese, whole or by its parts. @param {string} text @returns {string} */
function chineseNote(text) {
  for (const [pattern, chinese] of NOTES_ZH) {
    const found = pattern.exec(text);
    if (found) return filled(chinese, (i) => (/^(one run|the same score)/.test(text) ? chineseNote(found[i]) : found[i]));
  }
  for (const [mark, chinese] of [["; ", "；"], [", ", "，"]]) {
    const parts = text.split(mark);
    const done = parts.map((one) => (parts.length > 1 ? chineseNote(one) : one));
    if (done.some((one, i) => one !== parts[i])) return done.join(chinese);
  }
  return text;
}
/** @param {string} key */
function settingName(key) {
  return (language === "zh" && SETTINGS_ZH[key]) || key.replace(/^(train|delta)\./, "");
}
/** @param {Row} row */
function controlName(row) {
  return row.control && shortcutName(row.control);
}
/** @param {Row} row */
function deltaName(row) {
  return row.delta === "none" ? t("untuned") : row.delta;
}
