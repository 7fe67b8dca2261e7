// @ts-nocheck: to be typed with the new view
// The view "row": a row's cells, how the numbers came about, their runs, and predictions of each.
view({
  name: "row",
  title: "row",
  render(place, here) {
    const row = ROWS.get(here.about[0] ?? "");
    if (!row) return place.replaceChildren(el("h2", {}, t("noRows")));
    const dataset = here.query.get("dataset");
    const columns = BOARD.columns.filter((c) => row.cells[c.id]);
    const column = columns.find((c) => c.id === dataset) ?? columns[0];
    const links = columns.map((c) => el("a", { href: href("row", [row.id], { dataset: c.id }), "aria-current": c === column ? "true" : null }, columnName(c)));
    const cell = row.quoted ? row.cells[column.id] : { ...row.cells[column.id], ...part("details").rows[row.id][column.id] };
    place.replaceChildren(el("h2", { id: "row-title" }, `${rowName(row)}: ${columnName(column)}`), el("p", { class: "menu" }, ...links),
      el("div", { id: "row-body" }, ...(row.quoted ? quotedBody(cell) : measuredBody(row, column, cell))));
  },
});

function facts(pairs) {
  return el("dl", { class: "facts" }, ...pairs.filter(([, said]) => said).flatMap(([name, said]) => [el("dt", {}, name), el("dd", {}, said)]));
}
function value(data) {
  if (typeof data === "string") return data;
  const numbers = Array.isArray(data) && data.every((v) => typeof v === "number");
  return numbers ? `[${data.map((v) => Number(v.toFixed(3))).join(", ")}]` : JSON.stringify(data);
}
function quotedBody(cell) {
  return [
    el("p", {}, el("span", { class: "tag" }, t("quoted")), ` ${t("quotedBand")}.`),
    facts([[t("value"), score(cell.mean)], [t("asked"), cell.printed], [t("metric"), cell.metric], [t("template"), cell.template || t("unpublished")], [t("scoring"), cell.scoring || t("unpublished")], [t("notes"), cell.note], [t("source"), BOARD.sources[cell.source]]]),
  ];
}
function measuredBody(_row, column, cell) {
  const cost = cell.cost;
  const costs = Object.entries(COSTS).filter(([, c]) => c.of(cost) !== null).map(([k, c]) => `${t(k)} ${c.show(c.of(cost))}`);
  const settings = Object.entries(part("details").settings[cell.settings] || {}).map(([k, v]) => `${k}=${v}`).join("  ");
  const others = Object.entries(cell.others).map(([k, v]) => `${k} ${score(v)}`).join(", ");
  const parts = [
    facts([
      [t("value"), `${score(cell.mean)}${cell.std === null ? "" : ` ± ${score(cell.std)}`}  (${column.metric})`],
      [t("interval"), t("to", score(cell.low), score(cell.high))],
      [t("method"), cell.interval],
      [t("places"), cell.places === null ? "" : t("placesOf", String(cell.places.first), String(cell.places.last), String(cell.places.of))],
      [t("majority"), column.majority === null ? "" : score(column.majority)],
      [t("shortcuts"), Object.entries(column.shortcuts).map(([k, v]) => `${k} ${score(v)}`).join(", ")],
      [t("others"), others],
      [t("template"), `${column.template} v${column.template_version}`],
      [t("scoring"), [column.scoring, ...column.protocol].filter(Boolean).join(", ")],
      [t("rows"), String(column.n)],
      [t("notes"), [...column.notes, ...cell.notes].join("; ")],
      [t("cost"), costs.join(", ")],
      [t("scaling"), scalingText([cell.cost])],
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
// The texts of a prediction's example, if the page has them: its row, with the options' texts.
function exampleOf(set, prediction) {
  if (!set || prediction.row === undefined) return null;
  const row = set.rows[prediction.row];
  return { ...row, options: row.options || set.options || [], labels: set.labels, slot: set.slot };
}
// The prompt, with a mark in the place of an option or the answer.
function promptNode(example) {
  const slot = example.slot ? el("span", { class: "slot" }, t(example.slot === "option" ? "slotOption" : "slotAnswer")) : null;
  return el("div", { class: "prompt" }, example.text, slot, example.after || null);
}
// A table whose rows are blocks on narrow screens: blocks lose the roles of a table, so they are set
// here, and every cell gets its heading.
function stacking(table, heads) {
  const roles = { table: "table", thead: "rowgroup", tbody: "rowgroup", tr: "row", td: "cell", "thead th": "columnheader", "tbody th": "rowheader" };
  table.setAttribute("role", "table");
  for (const [selector, role] of Object.entries(roles)) for (const node of table.querySelectorAll(selector)) node.setAttribute("role", role);
  for (const row of table.tBodies[0].rows) [...row.cells].forEach((cell, i) => cell.setAttribute("data-head", heads[i][0]));
  return table;
}
// The text that a label, or the number of an option, stands for; null if it stands for itself.
function optionText(example, said) {
  if (!example || !example.options.length) return null;
  const number = example.labels ? example.labels.indexOf(said) : said;
  const text = Number.isInteger(number) ? example.options[number] : undefined;
  return text === undefined || text === said ? null : text;
}
function predictions(column, runId, which) {
  const all = part("predictions")[runId];
  if (!all || !all.length) return [el("p", { class: "quiet" }, t("noPredictions"))];
  const lines = all.filter((p) => !which || p.right === (which === "right"));
  const scored = all.some((p) => p.scores);
  const set = part("texts").sets[part("texts").of[runId]];
  const heads = [[t("example"), false], ...(scored ? [[t("options"), false]] : []), [t("prediction"), false], [t("target"), false], [t("verdict"), false]];
  const rows = lines.map((p) => {
    const example = exampleOf(set, p);
    const taken = p.scores && p.prediction !== null ? p.scores.indexOf(Math.max(...p.scores)) : -1;
    const named = example !== null && example.options.length > 0;
    const scores = el("div", { class: named ? "options named" : "options" }, ...(p.scores || []).map((s, i) => el("span", { class: i === taken ? "taken" : "" },
      `${i}: ${s.toFixed(3)}`, named && example.options[i] !== undefined ? ` ${example.options[i]}` : null)));
    const verdict = p.right === null ? el("span", {}, t("undecided")) : el("span", { class: p.right ? "right" : "wrong" }, t(p.right ? "right" : "wrong"));
    const text = (data) => {
      const means = optionText(example, data);
      return el("div", { class: "text" }, value(data), means === null ? null : el("div", { class: "quiet" }, means));
    };
    const name = example === null ? p.id : el("div", {}, el("div", { class: "quiet small" }, p.id), promptNode(example));
    return [name, ...(scored ? [scores] : []), text(p.prediction ?? p.text ?? null), text(p.target), verdict];
  });
  const table = plainTable(t("predictions"), heads, rows);
  return [
    el("p", { class: "quiet small" }, t("embedded", all.length, column.n), set ? (language === "zh" ? "" : " ") + t(set.slot ? "asPrompts" : "asFields") : null),
    el("div", { class: set ? "scroll with-texts" : "scroll", role: "region", tabindex: "0", "aria-label": t("predictions") }, set ? stacking(table, heads) : table),
  ];
}
