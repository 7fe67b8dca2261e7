// The part that follows the server: unfinished runs, failures, new data, predictions to be scored.
words({
  live: ["Live", "实时"], liveQuiet: ["nothing is running", "没有正在进行的运行"],
  liveWorking: ["{0} running", "{0} 个运行中"], liveFailedN: ["{0} failed", "{0} 个失败"],
  liveSweep: ["{0}: {2} of {1} trials finished, {3} running, {4} failed, {5} waiting", "{0}：{1} 个试验中 {2} 个已完成，{3} 个运行中，{4} 个失败，{5} 个等待"],
  liveAway: ["The server does not answer; trying again.", "服务器没有响应，正在重试。"],
  liveRun: ["run", "运行"], liveSeed: ["seed", "种子"], liveStage: ["stage", "阶段"], liveProgress: ["progress", "进度"],
  liveDev: ["last dev score", "最近的 dev 分数"], liveLeft: ["left", "剩余时间"], liveSign: ["last sign of life", "最近活动"],
  stage_training: ["training", "训练中"], stage_starting: ["starting", "启动中"], stage_dev: ["scoring dev", "正在评测 dev"],
  stage_test: ["scoring test", "正在评测 test"], stage_ending: ["ending", "即将完成"],
  liveStopped: ["stopped; repeat the command to resume", "已停止；重复原命令即可续跑"], liveElsewhere: ["{0} (on another machine)", "{0}（在其他机器上）"],
  liveAgo: ["{0} ago", "{0}前"], liveMore: ["and {0} more", "另有 {0} 个"], liveFailures: ["Failed", "失败的运行"], liveFresh: ["New results are shown.", "已显示新结果。"],
  liveScore: ["Score predictions", "给预测打分"],
  liveAbout: ["A file in the organisers' submission form, or lines of {\"id\": …, \"prediction\": …}. This server scores it.", "主办方提交格式的文件，或每行一个 {\"id\": …, \"prediction\": …}。由本服务器打分。"],
  liveTask: ["task", "任务"], liveSplit: ["split", "数据划分"], liveName: ["name of the system", "系统名称"], liveFile: ["file", "文件"],
  liveKeep: ["keep it as a row", "保留为一行"], liveSend: ["Score", "打分"], liveBusy: ["Scoring…", "正在打分……"],
  liveLarge: ["The file is larger than {0}.", "文件大于 {0}。"], liveNone: ["Choose a file first.", "请先选择文件。"], liveResult: ["{0} on {1}, {2}", "{0}，{1}，{2}"],
  liveMetric: ["metric", "指标"], liveValue: ["score", "分数"], liveInterval: ["95% interval", "95% 置信区间"], liveN: ["examples", "样本数"],
  liveKept: ["Kept as a row.", "已保留为一行。"], liveExisted: ["These predictions were there already.", "这些预测已经存在。"], liveNotKept: ["Not kept.", "未保留。"],
  liveAmongTrials: ["It is among the trials: show them in the table.", "它属于试验性结果：在表格中显示。"],
  liveLost: ["The server did not answer.", "服务器没有响应。"],
});

/** What the page knows of the server. */
const live = {
  version: part("live").version, away: false,
  now: /** @type {LiveState | null} */ (null),
  result: /** @type {LiveResult | null} */ (null),
  labels: /** @type {[HTMLElement, string][]} */ ([]),
  summary: el("summary"), body: el("div"), outcome: el("div", { role: "status" }), note: el("p", { class: "quiet small", role: "status" }),
};

/** @param {string} word @param {HTMLElement} control @param {boolean} tick */
function liveLabel(word, control, tick = false) {
  const text = el("span");
  live.labels.push([text, word]);
  return tick ? el("label", { class: "tick" }, control, text) : el("label", {}, text, control);
}

// --- what goes on ---

/** @param {LiveRun} run */
function liveStage(run) {
  if (run.working === false) return t("liveStopped");
  const stage = t(`stage_${run.stage}`);
  return run.working === null ? t("liveElsewhere", stage) : stage;
}
/** @param {LiveRun} run */
function liveProgress(run) {
  if (!run.total || !run.step) return run.step ? String(run.step) : "";
  const bar = el("progress", { max: run.total, value: run.step, "aria-label": run.name });
  return el("span", {}, bar, ` ${run.step} / ${run.total}`);
}
/** @param {LiveRun[]} runs */
function liveTable(runs) {
  /** @type {[string, boolean][]} */
  const heads = [[t("liveRun"), false], [t("liveSeed"), true], [t("liveStage"), false], [t("liveProgress"), false], [t("liveDev"), true], [t("liveLeft"), true], [t("liveSign"), true]];
  const rows = runs.map((run) => [run.name, String(run.seed), liveStage(run), liveProgress(run), run.dev === null ? "" : run.dev.toFixed(4),
    run.working && run.left !== null ? duration(run.left) : "", t("liveAgo", duration(run.silent))]);
  return el("div", { class: "wide" }, plainTable(t("live"), heads, rows));
}
function liveActivity() {
  if (live.now === null) return;
  const { runs, more, failed, sweeps, error } = live.now.activity;
  const working = runs.filter((run) => run.working !== false).length;
  const parts = [working ? t("liveWorking", working) : t("liveQuiet")];
  if (failed.length) parts.push(t("liveFailedN", failed.length));
  live.summary.textContent = live.away ? t("liveAway") : `${t("live")}: ${parts.join(", ")}`;
  live.body.replaceChildren(
    ...sweeps.map((s) => el("p", {}, t("liveSweep", s.folder, s.total, s.finished ?? 0, s.running ?? 0, s.failed ?? 0, s.waiting ?? 0))),
    ...(error ? [el("p", { class: "error" }, error)] : []),
    ...(runs.length ? [liveTable(runs)] : []),
    ...(more ? [el("p", { class: "quiet" }, t("liveMore", more))] : []),
    ...(failed.length ? [el("p", {}, t("liveFailures")), el("ul", {}, ...failed.map((one) => el("li", {}, `${one.name}: ${one.error}`)))] : []));
}

// --- predictions ---

const liveForm = {
  task: el("select", { required: "" }), split: el("select"), name: el("input", { required: "", maxlength: 80, autocomplete: "off" }),
  seed: el("input", { type: "number", min: 0, max: 4294967295, value: 1, required: "" }), file: el("input", { type: "file" }),
  keep: el("input", { type: "checkbox" }), send: el("button", { type: "submit" }),
};
function liveOutcome() {
  const { result } = live;
  if (result === null) return live.outcome.replaceChildren();
  if ("word" in result) return live.outcome.replaceChildren(el("p", {}, t(...result.word)));
  if ("error" in result) return live.outcome.replaceChildren(el("p", { class: "error" }, result.error));
  const rows = Object.entries(result.scores).map(([name, s]) => [name, s.value.toFixed(4), `${s.low.toFixed(4)} – ${s.high.toFixed(4)}`, String(s.n)]);
  /** @type {[string, boolean][]} */
  const heads = [[t("liveMetric"), false], [t("liveValue"), true], [t("liveInterval"), true], [t("liveN"), true]];
  const fate = t(result.kept ? (result.existed ? "liveExisted" : "liveKept") : "liveNotKept");
  const end = result.kept ? el("a", { href: href("row", [result.row]) }, fate) : fate;
  const cells = Object.keys(ROWS.get(result.row)?.cells ?? {});
  const hidden = result.kept && cells.length > 0 && !onlyTrials() && cells.every((id) => kindOf(/** @type {Column} */ (COLUMNS.get(id))) === "trial");
  const where = hidden ? [el("a", { href: href("table", [], { trials: "true" }) }, t("liveAmongTrials"))] : [];
  return live.outcome.replaceChildren(el("div", { class: "wide" }, plainTable(t("liveResult", result.name, result.task, result.split), heads, rows)),
    el("ul", {}, ...[...result.warnings, end, ...where].map((text) => el("li", {}, text))));
}
/** @param {LiveResult} result */
function liveShow(result) {
  live.result = result;
  liveOutcome();
}
/** @param {Event} event */
async function liveScore(event) {
  event.preventDefault();
  const file = liveForm.file.files?.[0];
  if (live.now === null) return;
  const { most_bytes: most, keep } = live.now.scoring;
  if (file === undefined || file.size > most) {
    liveShow({ word: file === undefined ? ["liveNone"] : ["liveLarge", bytes(most)] });
    return;
  }
  const fields = {
    task: liveForm.task.value, split: liveForm.split.value, name: liveForm.name.value.trim(), seed: liveForm.seed.value,
    file: file.name, keep: keep && liveForm.keep.checked ? "yes" : "no",
  };
  liveForm.send.disabled = true;
  liveShow({ word: ["liveBusy"] });
  try {
    const headers = { "Content-Type": "application/octet-stream" };
    const answer = await fetch(`score?${new URLSearchParams(fields)}`, { method: "POST", body: file, headers });
    liveShow(await answer.json());
  } catch {
    liveShow({ word: ["liveLost"] });
  }
  liveForm.send.disabled = false;
  await liveLook();
}

// --- the loop ---

function liveWords() {
  for (const [node, word] of live.labels) node.textContent = t(word);
  liveActivity();
  liveOutcome();
}
/** @param {LiveState["scoring"]} scoring */
function liveOffer({ tasks, keep }) {
  if (liveForm.task.options.length) return;
  options(liveForm.task, tasks.map((task) => [task, task]), tasks[0] ?? "");
  options(liveForm.split, [["test", "test"], ["dev", "dev"]], "test");
  for (const label of liveForm.keep.labels ?? []) label.hidden = !keep;
}
async function liveLook() {
  try {
    const answer = await fetch("live.json");
    if (!answer.ok) throw new Error(answer.statusText);
    const now = /** @type {LiveState} */ (await answer.json());
    live.now = now;
    live.away = false;
    liveOffer(now.scoring);
    if (now.version !== live.version) {
      const data = await fetch("data.json");
      update(await data.json());
      live.version = data.headers.get("ETag")?.replaceAll('"', "") ?? now.version;
      live.note.textContent = t("liveFresh");
      liveOutcome(); // where the kept row is
    }
  } catch {
    live.away = true;
    live.summary.textContent = t("liveAway");
  }
  for (const [node, word] of live.labels) node.textContent = t(word);
  liveActivity();
}
async function liveLoop() {
  if (!document.hidden) await liveLook();
  setTimeout(liveLoop, 1000 * (live.now?.poll ?? 2));
}

{
  const heading = el("summary");
  live.labels.push([heading, "liveScore"], [liveForm.send, "liveSend"]);
  const about = el("p", { class: "quiet" });
  live.labels.push([about, "liveAbout"]);
  const form = el("form", { onsubmit: liveScore }, liveLabel("liveTask", liveForm.task), liveLabel("liveSplit", liveForm.split),
    liveLabel("liveName", liveForm.name), liveLabel("liveSeed", liveForm.seed), liveLabel("liveFile", liveForm.file), liveLabel("liveKeep", liveForm.keep, true), liveForm.send);
  const now = el("details", { id: "live-now", open: "" }, live.summary, live.body);
  document.querySelector("main")?.before(el("section", { class: "live", id: "live" },
    now, el("details", { id: "live-score" }, heading, about, form, live.outcome), live.note));
  for (const id of ["lang-en", "lang-zh"]) $(id).addEventListener("click", () => setTimeout(liveWords, 0));
  setTimeout(liveLoop, 0); // when the page has been drawn
}
