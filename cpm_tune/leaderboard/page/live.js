// The part that follows the server: unfinished runs, failures, new data, predictions to be scored.
const LIVE_WORDS = {
  en: {
    live: "Live", quiet: "nothing is running", working: (n) => `${n} running`, failedN: (n) => `${n} failed`,
    sweep: (s) => `${s.folder}: ${s.finished || 0} of ${s.total} trials finished, ${s.running || 0} running, ${s.failed || 0} failed, ${s.waiting || 0} waiting`,
    away: "The server does not answer; trying again.", run: "run", seed: "seed", stage: "stage", progress: "progress", dev: "last dev score", left: "left", sign: "last sign of life",
    training: "training", starting: "starting", devStage: "scoring dev", test: "scoring test", ending: "ending", stopped: "stopped", unknown: "on another machine",
    ago: (text) => `${text} ago`, more: (n) => `and ${n} more`, failures: "Failed", fresh: "New results are shown.",
    score: "Score predictions", about: "A file of the organisers' submission form, or lines of {\"id\": …, \"prediction\": …}. It is scored on this server and not kept",
    aboutKeep: "A file of the organisers' submission form, or lines of {\"id\": …, \"prediction\": …}. It is scored on this server.",
    task: "task", split: "split", name: "name of the system", file: "file", keep: "keep it as a row", send: "Score", busy: "Scoring…",
    large: (most) => `The file is larger than ${most}.`, none: "Choose a file first.", result: (r) => `${r.name} on ${r.task}, ${r.split}`,
    metric: "metric", value: "score", interval: "95% interval", n: "examples", kept: "Kept as a row.", existed: "These predictions were there already.", notKept: "Not kept.", lost: "The server did not answer.",
  },
  zh: {
    live: "实时", quiet: "没有正在进行的运行", working: (n) => `${n} 个运行中`, failedN: (n) => `${n} 个失败`,
    sweep: (s) => `${s.folder}：${s.total} 个试验中 ${s.finished || 0} 个已完成，${s.running || 0} 个运行中，${s.failed || 0} 个失败，${s.waiting || 0} 个等待`,
    away: "服务器没有响应，正在重试。", run: "运行", seed: "种子", stage: "阶段", progress: "进度", dev: "最近的 dev 分数", left: "剩余时间", sign: "最近活动",
    training: "训练中", starting: "启动中", devStage: "正在评测 dev", test: "正在评测 test", ending: "即将完成", stopped: "已停止", unknown: "在其他机器上",
    ago: (text) => `${text}前`, more: (n) => `另有 ${n} 个`, failures: "失败的运行", fresh: "已显示新结果。",
    score: "给预测打分", about: "主办方提交格式的文件，或每行一个 {\"id\": …, \"prediction\": …}。文件只在本服务器上打分，不保留",
    aboutKeep: "主办方提交格式的文件，或每行一个 {\"id\": …, \"prediction\": …}。文件只在本服务器上打分。",
    task: "任务", split: "数据划分", name: "系统名称", file: "文件", keep: "保留为一行", send: "打分", busy: "正在打分……",
    large: (most) => `文件大于 ${most}。`, none: "请先选择文件。", result: (r) => `${r.name}，${r.task}，${r.split}`,
    metric: "指标", value: "分数", interval: "95% 置信区间", n: "样本数", kept: "已保留为一行。", existed: "这些预测已经存在。", notKept: "未保留。", lost: "服务器没有响应。",
  },
};
function liveWord(key, ...args) {
  const text = LIVE_WORDS[language][key];
  return typeof text === "function" ? text(...args) : text;
}

const live = {
  version: part("live").version, now: null, away: false, result: null,
  summary: el("summary"), body: el("div"), note: el("p", { class: "quiet small", role: "status" }),
  words: [], outcome: el("div", { role: "status" }),
};

function liveLabel(key, control, tick) {
  const text = el("span");
  live.words.push([text, key]);
  return tick ? el("label", { class: "tick" }, control, text) : el("label", {}, text, control);
}

// --- what goes on ---

function liveStage(run) {
  if (run.working === false) return liveWord("stopped");
  const stage = liveWord(run.stage === "dev" ? "devStage" : run.stage);
  return run.working === null ? `${stage} (${liveWord("unknown")})` : stage;
}
function liveProgress(run) {
  if (run.stage !== "training" || !run.total) return run.step ? String(run.step) : "";
  const bar = el("progress", { max: run.total, value: run.step, "aria-label": run.name });
  return el("span", {}, bar, ` ${run.step} / ${run.total}`);
}
function liveTable(runs) {
  const heads = ["run", "seed", "stage", "progress", "dev", "left", "sign"];
  const numeric = new Set(["seed", "dev", "left", "sign"]);
  const cell = (name, key, content) => el(name, { class: numeric.has(key) ? "n" : null, scope: name === "th" ? "col" : null }, content);
  const rows = runs.map((run) => {
    const values = [run.name, String(run.seed), liveStage(run), liveProgress(run),
      run.dev === null ? "" : run.dev.toFixed(4), run.working && run.left !== null ? duration(run.left) : "", liveWord("ago", duration(run.silent))];
    return el("tr", {}, ...values.map((value, i) => cell("td", heads[i], value)));
  });
  return el("div", { class: "wide" }, el("table", {},
    el("thead", {}, el("tr", {}, ...heads.map((key) => cell("th", key, liveWord(key))))), el("tbody", {}, ...rows)));
}
function liveActivity() {
  if (!live.now) return;
  const { runs, more, failed, sweeps, error } = live.now.activity;
  const working = runs.filter((run) => run.working !== false).length;
  const parts = [working ? liveWord("working", working) : liveWord("quiet")];
  if (failed.length) parts.push(liveWord("failedN", failed.length));
  live.summary.textContent = live.away ? liveWord("away") : `${liveWord("live")}: ${parts.join(", ")}`;
  const nodes = sweeps.map((sweep) => el("p", {}, liveWord("sweep", sweep)));
  if (error) nodes.push(el("p", { class: "error" }, error));
  if (runs.length) nodes.push(liveTable(runs));
  if (more) nodes.push(el("p", { class: "quiet" }, liveWord("more", more)));
  if (failed.length) {
    nodes.push(el("p", {}, liveWord("failures")), el("ul", {}, ...failed.map((one) => el("li", {}, `${one.name}: ${one.error}`))));
  }
  live.body.replaceChildren(...nodes);
}

// --- predictions ---

const liveForm = {
  task: el("select", { required: "" }), split: el("select"), name: el("input", { required: "", maxlength: 80, autocomplete: "off" }),
  seed: el("input", { type: "number", min: 0, max: 4294967295, value: 1, required: "" }), file: el("input", { type: "file" }),
  keep: el("input", { type: "checkbox" }), about: el("p", { class: "quiet" }), send: el("button", { type: "submit" }),
};
function liveOutcome() {
  const result = live.result;
  if (!result) return live.outcome.replaceChildren();
  if (result.word) return live.outcome.replaceChildren(el("p", {}, liveWord(...result.word)));
  if (result.error) return live.outcome.replaceChildren(el("p", { class: "error" }, result.error));
  const metrics = Object.entries(result.scores);
  const rows = metrics.map(([name, s]) => [name, s.value.toFixed(4), `${s.low.toFixed(4)} – ${s.high.toFixed(4)}`, String(s.n)]);
  const heads = [[liveWord("metric"), false], [liveWord("value"), true], [liveWord("interval"), true], [liveWord("n"), true]];
  const fate = liveWord(result.kept ? (result.existed ? "existed" : "kept") : "notKept");
  const end = result.kept ? el("a", { href: href("row", [result.row]) }, fate) : fate;
  return live.outcome.replaceChildren(el("div", { class: "wide" }, plainTable(liveWord("result", result), heads, rows)),
    el("ul", {}, ...[...result.warnings, end].map((text) => el("li", {}, text))));
}
async function liveScore(event) {
  event.preventDefault();
  const [file] = liveForm.file.files;
  const { most_bytes: most, keep } = live.now.scoring;
  if (!file || file.size > most) {
    live.result = { word: file ? ["large", bytes(most)] : ["none"] };
    return liveOutcome();
  }
  const fields = { task: liveForm.task.value, split: liveForm.split.value, name: liveForm.name.value.trim(), seed: liveForm.seed.value, file: file.name, keep: keep && liveForm.keep.checked ? "yes" : "no" };
  live.result = { word: ["busy"] };
  liveForm.send.disabled = true;
  liveOutcome();
  try {
    const answer = await fetch(`score?${new URLSearchParams(fields)}`, { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
    live.result = await answer.json();
  } catch (error) {
    live.result = { word: ["lost"] };
  }
  liveForm.send.disabled = false;
  liveOutcome();
  return liveLook();
}

// --- the loop ---

function liveWords() {
  for (const [node, key] of live.words) node.textContent = liveWord(key);
  if (live.now) liveForm.about.textContent = liveWord(live.now.scoring.keep ? "aboutKeep" : "about");
  liveActivity();
  liveOutcome();
}
function liveOffer({ tasks, keep }) {
  if (!liveForm.task.options.length) {
    options(liveForm.task, tasks.map((task) => [task, task]), tasks[0]);
    options(liveForm.split, [["test", "test"], ["dev", "dev"]], "test");
    liveForm.keep.closest("label").hidden = !keep;
  }
}
async function liveNewData(version) {
  const answer = await fetch("data.json");
  update(await answer.json());
  live.version = version;
  live.note.textContent = liveWord("fresh");
}
async function liveLook() {
  try {
    const answer = await fetch("live.json");
    if (!answer.ok) throw new Error(answer.statusText);
    live.now = await answer.json();
    live.away = false;
    liveOffer(live.now.scoring);
    if (live.now.version !== live.version) await liveNewData(live.now.version);
  } catch (error) {
    live.away = true;
    if (!live.now) live.summary.textContent = liveWord("away");
  }
  liveWords();
}
async function liveLoop() {
  if (!document.hidden) await liveLook();
  setTimeout(liveLoop, 1000 * (live.now ? live.now.poll : 2));
}

{
  const heading = el("summary");
  live.words.push([heading, "score"], [liveForm.send, "send"]);
  const form = el("form", { onsubmit: liveScore }, liveLabel("task", liveForm.task), liveLabel("split", liveForm.split), liveLabel("name", liveForm.name),
    liveLabel("seed", liveForm.seed), liveLabel("file", liveForm.file), liveLabel("keep", liveForm.keep, true), liveForm.send);
  const now = el("details", { id: "live-now" }, live.summary, live.body);
  now.open = true;
  const section = el("section", { class: "live", id: "live" }, now, el("details", { id: "live-score" }, heading, liveForm.about, form, live.outcome), live.note);
  document.querySelector("main").before(section);
  for (const id of ["lang-en", "lang-zh"]) $(id).addEventListener("click", liveWords);
  setTimeout(liveLoop, 0); // when the page has been drawn
}
