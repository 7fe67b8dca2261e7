// Texts of the page in English and Chinese. Names of rows, datasets and metrics are not translated.
const WORDS = {
  title: ["cpm-tune leaderboard", "cpm-tune 排行榜"],
  skip: ["Skip to the scores", "跳到成绩表"],
  language: ["Language", "语言"],
  theme: ["Colours", "配色"],
  auto: ["Auto", "自动"], light: ["Light", "浅色"], dark: ["Dark", "深色"],
  scores: ["Scores", "成绩"],
  capability: ["Capability", "能力"], dataset: ["Dataset", "数据集"],
  backbone: ["Backbone", "骨干模型"], delta: ["Delta", "Delta 方法"],
  values: ["Values", "数值"], search: ["Find a row", "查找行"],
  show: ["Show", "显示"], intervals: ["95% confidence intervals", "95% 置信区间"], cost: ["Cost", "开销"],
  quotedRows: ["Published results", "已发表结果"], reset: ["Reset", "重置"],
  all: ["all", "全部"], raw: ["as scored", "原始得分"],
  relative: ["100 = {0}", "以 {0} 为 100"],
  row: ["Row", "行"], overall: ["Overall", "总体"],
  coverage: ["datasets", "数据集数"], mean: ["mean shown", "可见数据集的平均分"],
  summary: ["{0} runs in {1} rows and {2} columns", "{0} 次运行，{1} 行，{2} 列"],
  status: ["{0} of {1} rows, {2} of {3} columns", "显示 {0} / {1} 行，{2} / {3} 列"],
  sortedBy: ["sorted by {0}", "按 {0} 排序"],
  legend: [
    "Each number is the mean over seeds, ± their standard deviation. The bar below it is the 95% confidence interval, on the scale of its column. The best measured mean of each column is shaded. Press a number for its runs and predictions. A mean or an index is blank if one of its datasets is missing.",
    "数字为各随机种子的均值，± 为标准差；下方横条为 95% 置信区间，按所在列的范围绘制。底色标出该列最优实测值。点击数字可查看其运行与预测。缺少任何一个数据集时，均值与指数留空。"],
  quotedBand: ["Quoted from publications, not measured here", "引自公开发表的论文或榜单，非本项目实测"],
  quoted: ["published", "已发表"], best: ["best measured", "实测最优"],
  interval: ["95% confidence interval", "95% 置信区间"], to: ["{0} to {1}", "{0} 至 {1}"],
  seeds: ["seeds", "种子数"], seed: ["seed", "种子"], value: ["score", "得分"],
  trained: ["trained", "可训练参数量"], bytes: ["delta size", "delta 大小"], speed: ["samples/s", "样本/秒"],
  seconds: ["wall time", "总用时"], memory: ["peak memory", "内存或显存峰值"],
  scaling: ["parallel efficiency", "并行效率"], scalingOf: ["{0} processes: {1}", "{0} 进程：{1}"],
  figures: ["Figures", "图"],
  figuresNote: ["Tick up to eight rows in the table above to compare them here.", "在上表中勾选至多八行，即可在此比较。"],
  remove: ["remove {0} from the figures", "从图中移除 {0}"],
  choose: ["show {0} in the figures", "在图中显示 {0}"],
  tooMany: ["Eight rows at most; remove one first.", "最多八行，请先移除一行。"],
  radar: ["The seven capabilities", "七种能力"],
  radarNote: ["Each value is the mean over the datasets of a capability; a gap means that a dataset has no run.", "数值为各能力所含数据集的均值；断开处表示缺少运行。"],
  radarScale: ["Each axis ends at its best row.", "各轴以该项最高分为上限。"],
  scatter: ["Cost and quality", "开销与质量"],
  costAxis: ["Cost", "开销"], scoreAxis: ["Quality", "质量"], front: ["Pareto front", "帕累托前沿"],
  onFront: ["on the front", "在前沿上"], yes: ["yes", "是"], no: ["no", "否"],
  curves: ["Learning curves", "学习曲线"], curveOf: ["Curve", "曲线"],
  dev: ["dev score", "开发集得分"], loss: ["training loss", "训练损失"], step: ["step", "步"],
  asTable: ["As a table", "以表格显示"],
  nothing: ["Nothing to draw: no chosen row has such data.", "没有可画的内容：所选行没有这项数据。"],
  about: ["About the numbers", "数据说明"],
  indices: ["Indices", "指数"], baseline: ["Baseline: {0}.", "基线：{0}。"],
  columns: ["Columns", "列"],
  columnsNote: [
    "Runs are in one column only if task version, template, scoring rule, shots, dev and test files, limit and metric are equal; only runs that differ in nothing but the seed are averaged.",
    "只有任务版本、模板、打分规则、示例数、开发集与测试集文件、行数限制和指标都相同的运行才在同一列；只对仅随机种子不同的运行取平均。"],
  column: ["column", "列"], metric: ["metric", "指标"], template: ["template", "模板"],
  scoring: ["scoring rule", "打分规则"], unpublished: ["not published", "未公布"],
  rows: ["test rows", "测试行数"], notes: ["notes", "说明"], apart: ["differs from its other columns in", "与同数据集其他列的区别"],
  sources: ["Sources of published results", "已发表结果的来源"], source: ["source", "来源"],
  leftOut: ["Left out", "未收入的文件"], close: ["Close", "关闭"],
  method: ["interval method", "置信区间算法"], settings: ["settings", "设置"], majority: ["majority class", "多数类基线"],
  places: ["places not excluded by paired tests", "配对检验未排除的名次"], placesOf: ["{0} to {1} of {2}", "第 {0} 至 {1} 名（共 {2}）"],
  shortcuts: ["shortcuts without a model", "不用模型的捷径"],
  others: ["other metrics", "其他指标"], runs: ["Runs", "运行"], run: ["run", "运行"],
  predictions: ["Predictions on test", "测试集预测"],
  embedded: ["{0} of {1} test rows, in the file's order; the run's folder has them all.", "测试集 {1} 行中按文件顺序的前 {0} 行；完整结果在运行的文件夹中。"],
  asPrompts: ["Examples are the model's actual input; long texts are shortened.", "样例即模型的实际输入，过长的文本已截短。"],
  asFields: ["Examples are shown by their fields; long texts are shortened.", "样例按字段显示，过长的文本已截短。"],
  slotOption: ["option", "选项"], slotAnswer: ["answer", "答案"],
  noPredictions: ["No predictions of this run are embedded.", "没有嵌入该次运行的预测。"],
  filter: ["Show", "显示"], onlyRight: ["right", "正确"], onlyWrong: ["wrong", "错误"],
  example: ["example", "样例"], options: ["options' scores", "选项得分"],
  prediction: ["prediction", "预测"], target: ["gold answer", "标准答案"], verdict: ["right?", "是否正确"],
  right: ["✓ right", "✓ 正确"], wrong: ["✗ wrong", "✗ 错误"], undecided: ["–", "–"],
  outside: ["outside system", "外部系统"],
  asked: ["metric as printed", "原文指标"], limited: ["not official data", "非官方数据"],
  none: ["none", "无"], noRows: ["No row fits these filters.", "没有符合筛选条件的行。"],
};
const CAPABILITIES = {
  "word-sentence": "词句级理解",
  "discourse": "篇章级理解",
  "information acquisition and question answering": "信息获取与问答",
  "language generation": "语言生成",
  "conversational interaction": "对话交互",
  "multilingual": "多语言",
  "mathematical reasoning": "数学推理",
  "language understanding": "语言理解",
  "not known": "未知",
};
// The indices' rules in Chinese; the board has them in English.
const RULES_ZH = {
  "normalised-mean": ["CUGE lite，归一化均值", "每个数据集为 100 × 得分 / 基线，先对数据集取均值得到任务，再对任务取均值得到能力，最后对能力取均值：CUGE 报告所述的算法。"],
  "ratio-of-sums": ["CUGE lite，总分之比", "100 × 得分之和 / 基线得分之和：CUGE 榜单实际采用的算法。"],
};
const SEVEN = Object.keys(CAPABILITIES).slice(0, 7);
let language = "en";

function t(key, ...parts) {
  const said = WORDS[key][language === "zh" ? 1 : 0];
  return said.replace(/\{(\d)\}/g, (_, i) => parts[Number(i)]);
}

function capabilityName(name) {
  return language === "zh" ? CAPABILITIES[name] || name : name;
}
