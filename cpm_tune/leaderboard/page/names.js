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
  "normalised-mean": ["CUGE lite，归一化均值", "每个数据集为 100 × 得分 / 基线，先对数据集取均值得到任务，再对任务取均值得到能力，最后对能力取均值：CUGE 报告所述的算法。"],
  "ratio-of-sums": ["CUGE lite，总分之比", "100 × 得分之和 / 基线得分之和：CUGE 榜单实际采用的算法。"],
};

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
  return name;
}
/** @param {string} name */
function shortcutName(name) {
  return name;
}
/** A sentence of the board about data or protocol. @param {string} note @param {boolean} short */
function noteText(note, short = false) {
  return short ? note.replace(/, not comparable with real results$/, "") : note;
}
/** @param {string} key */
function settingName(key) {
  return key.replace(/^(train|delta)\./, "");
}
/** @param {Row} row */
function controlName(row) {
  return row.control;
}
/** @param {Row} row */
function deltaName(row) {
  return row.delta;
}
