// The dialog of one cell: how the number came about, its runs, and predictions of each.
function facts(pairs) {
  return el("dl", { class: "facts" }, ...pairs.filter(([, said]) => said).flatMap(([name, said]) => [el("dt", {}, name), el("dd", {}, said)]));
}
function value(data) {
  return typeof data === "string" ? data : JSON.stringify(data);
}
function openCell(row, column) {
  const cell = row.cells[column.id];
  $("cell-title").textContent = `${rowName(row)}: ${column.id.replace("#quoted", "")}`;
  const body = $("cell-body");
  body.replaceChildren(...(row.quoted ? quotedBody(cell) : measuredBody(row, column, cell)));
  $("cell").showModal();
  $("cell").scrollTop = 0;
}
function quotedBody(cell) {
  return [
    el("p", {}, el("span", { class: "tag" }, t("quoted")), ` ${t("quotedBand")}.`),
    facts([[t("value"), score(cell.mean)], [t("asked"), cell.printed], [t("metric"), cell.metric], [t("notes"), cell.note], [t("source"), BOARD.sources[cell.source]]]),
  ];
}
function measuredBody(row, column, cell) {
  const cost = cell.cost;
  const costs = Object.entries(COSTS).filter(([, c]) => c.of(cost) !== null).map(([k, c]) => `${t(k)} ${c.show(c.of(cost))}`);
  const settings = Object.entries(DATA.settings[cell.settings] || {}).map(([k, v]) => `${k}=${v}`).join("  ");
  const others = Object.entries(cell.others).map(([k, v]) => `${k} ${score(v)}`).join(", ");
  const parts = [
    facts([
      [t("value"), `${score(cell.mean)}${cell.std === null ? "" : ` ± ${score(cell.std)}`}  (${column.metric})`],
      [t("interval"), t("to", score(cell.low), score(cell.high))],
      [t("method"), cell.interval],
      [t("majority"), column.majority === null ? "" : score(column.majority)],
      [t("others"), others],
      [t("template"), `${column.template} v${column.template_version}`],
      [t("rows"), String(column.n)],
      [t("notes"), [...column.notes, ...cell.notes].join("; ")],
      [t("cost"), costs.join(", ")],
      [t("scaling"), scalingText([cell])],
      [t("settings"), settings],
    ]),
    el("div", { class: "scroll" }, plainTable(t("runs"),
      [[t("run"), false], [t("seed"), true], [t("value"), true], [t("interval"), true]],
      cell.runs.map((run) => [run.run_id, String(run.seed), score(run.value), t("to", score(run.low), score(run.high))]))),
  ];
  return [...parts, ...predictionParts(column, cell)];
}
function predictionParts(column, cell) {
  const run = el("select", { id: "p-run" });
  const which = el("select", { id: "p-which" });
  options(run, cell.runs.map((r) => [r.run_id, `${t("seed")} ${r.seed}`]));
  options(which, [["", t("all")], ["right", t("onlyRight")], ["wrong", t("onlyWrong")]]);
  const place = el("div", { id: "predictions" });
  const show = () => place.replaceChildren(...predictions(column, run.value, which.value));
  run.addEventListener("change", show);
  which.addEventListener("change", show);
  show();
  return [
    el("h3", {}, t("predictions")),
    el("div", { class: "axes" },
      el("label", {}, el("span", {}, t("run")), run),
      el("label", {}, el("span", {}, t("filter")), which)),
    place,
  ];
}
function predictions(column, runId, which) {
  const all = DATA.predictions[runId];
  if (!all || !all.length) return [el("p", { class: "quiet" }, t("noPredictions"))];
  const lines = all.filter((p) => !which || p.right === (which === "right"));
  const scored = all.some((p) => p.scores);
  const heads = [[t("example"), false], ...(scored ? [[t("options"), false]] : []), [t("prediction"), false], [t("target"), false], [t("verdict"), false]];
  const rows = lines.map((p) => {
    const taken = p.scores ? p.scores.indexOf(Math.max(...p.scores)) : -1;
    const scores = el("div", { class: "options" }, ...(p.scores || []).map((s, i) => el("span", { class: i === taken ? "taken" : "" }, `${i}: ${s.toFixed(3)}`)));
    const verdict = p.right === null ? el("span", {}, t("undecided")) : el("span", { class: p.right ? "right" : "wrong" }, t(p.right ? "right" : "wrong"));
    const text = (data) => el("div", { class: "text" }, value(data));
    return [p.id, ...(scored ? [scores] : []), text(p.prediction ?? p.text ?? null), text(p.target), verdict];
  });
  return [
    el("p", { class: "quiet small" }, t("embedded", all.length, column.n)),
    el("div", { class: "scroll" }, plainTable(t("predictions"), heads, rows)),
  ];
}
