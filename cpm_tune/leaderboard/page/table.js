// The table of scores: rows chosen by the filters, columns in CUGE's hierarchy, cost beside them.
function sortButton(key, title, under, marks = []) {
  const button = el("button", { type: "button", class: "sort", "data-sort": key }, title, ...marks, under ? el("small", {}, under) : null);
  button.addEventListener("click", () => {
    state.down = state.sort === key ? !state.down : key !== "row" && (!COLUMNS.has(key) || better(key) > 0);
    state.sort = key;
    renderTable();
    document.querySelector(`[data-sort="${CSS.escape(key)}"]`).focus();
  });
  return button;
}
function sortableHead(key, title, under, start, marks) {
  const order = state.sort === key ? (state.down ? "descending" : "ascending") : null;
  return el("th", { scope: "col", class: `n${start ? " start" : ""}`, "aria-sort": order }, sortButton(key, title, under, marks));
}
function overallColumns(rows) {
  const found = ["coverage", "mean"];
  for (const name of Object.keys(BOARD.indices)) {
    if (rows.some((row) => row.indices[name] && row.indices[name].value !== null)) found.push(`index:${name}`);
  }
  return found;
}
function costColumns() {
  return state.cost ? [...Object.keys(COSTS), "scaling"] : [];
}
function columnHead(column, start) {
  const marks = [];
  if (!column.official) marks.push(el("span", { class: "mark", title: column.notes.join("; ") }, " *"), el("span", { class: "hidden" }, ` (${t("limited")})`));
  const under = measuredIn.has(column.id) ? column.metric : `${column.metric}, ${t("quoted")}`;
  return sortableHead(column.id, column.id.replace("#quoted", ""), under, start, marks);
}
function head(columns, overall) {
  const groups = [];
  for (const column of columns) {
    const last = groups[groups.length - 1];
    if (last && last.name === column.capability) last.n += 1;
    else groups.push({ name: column.capability, n: 1 });
  }
  const costs = costColumns();
  const order = state.sort === "row" ? (state.down ? "descending" : "ascending") : null;
  const top = el("tr", {},
    el("th", { class: "name", rowspan: 2, scope: "col", "aria-sort": order }, sortButton("row", t("row"))),
    el("th", { class: "group start", colspan: overall.length, scope: "colgroup" }, t("overall")),
    ...groups.map((g) => el("th", { class: "group start", colspan: g.n, scope: "colgroup" }, capabilityName(g.name))),
    costs.length ? el("th", { class: "group start", colspan: costs.length, scope: "colgroup" }, t("cost")) : null);
  let before = null;
  const second = el("tr", {},
    ...overall.map((key, i) => {
      const index = key.startsWith("index:") ? key.slice(6) : null;
      const start = i === 0;
      return index ? sortableHead(key, index, "CUGE lite", start) : sortableHead(key, t(key), null, start);
    }),
    ...columns.map((column) => {
      const start = column.capability !== before;
      before = column.capability;
      return columnHead(column, start);
    }),
    ...costs.map((key, i) => key === "scaling"
      ? el("th", { scope: "col", class: "n" }, t("scaling"))
      : sortableHead(`cost:${key}`, t(key), null, i === 0)));
  return el("thead", {}, top, second);
}
// An outside system has no delta: it is called by its own name.
function outside(row) {
  return row.delta === "outside system";
}
function nameCell(row) {
  const box = el("input", { type: "checkbox", "aria-label": t("choose", rowName(row)) });
  box.checked = state.chosen.includes(row.id);
  box.addEventListener("change", () => {
    if (!choose(row.id, box.checked)) {
      box.checked = false;
      $("status").textContent = t("tooMany");
      return;
    }
    renderTable();
    renderFigures();
    document.querySelector(`[data-row="${CSS.escape(row.id)}"] input`).focus();
  });
  const settings = Object.entries(row.settings).map(([k, v]) => `${k.replace(/^(train|delta)\./, "")}=${v}`).join("  ");
  const name = el("span", {},
    el("b", {}, row.quoted ? row.name : outside(row) ? row.backbone : row.delta),
    row.quoted ? el("span", { class: "tag" }, t("quoted")) : null,
    row.control ? el("span", { class: "tag" }, row.control) : null,
    el("small", {}, row.quoted ? row.setting : outside(row) ? t("outside") : row.backbone),
    settings ? el("small", {}, settings) : null);
  const mark = colour(row.id);
  return el("th", { class: "name", scope: "row" }, el("span", { class: "pick" }, box, mark ? swatch(mark) : null, name));
}
function range(column, rows) {
  let low = Infinity, high = -Infinity;
  for (const row of rows) {
    const cell = row.cells[column.id];
    if (!cell || row.quoted) continue;
    low = Math.min(low, cell.low);
    high = Math.max(high, cell.high);
  }
  return [low, high > low ? high : low + 1];
}
function bar(cell, [low, high]) {
  const inner = el("i");
  inner.style.left = `${(100 * (cell.low - low)) / (high - low)}%`;
  inner.style.width = `${(100 * (cell.high - cell.low)) / (high - low)}%`;
  return el("span", { class: "bar", "aria-hidden": "true" }, inner);
}
function scoreCell(row, column, start, best, span) {
  const cell = row.cells[column.id];
  const kind = start ? "n start" : "n";
  const value = shown(cell, column.id);
  if (value === null) return el("td", { class: `${kind} plain` });
  const isBest = !row.quoted && cell.mean === best;
  const std = cell.std === null ? null : Math.abs(shown(cell, column.id, "std") ?? 0);
  const said = [`${column.id}: ${score(value)}`];
  if (!row.quoted) said.push(`${t("interval")} ${t("to", score(shown(cell, column.id, "low")), score(shown(cell, column.id, "high")))}`);
  if (isBest) said.push(t("best"));
  if (row.quoted) said.push(t("quoted"));
  const relative = Boolean(state.base) && !column.higher_is_better;
  const button = el("button", { type: "button", class: isBest ? "score best" : "score", "aria-label": said.join(", "), title: said.join(", ") },
    el("b", {}, score(value)),
    row.quoted ? null : el("small", {}, std === null || relative ? "" : `±${score(std)}`),
    row.quoted ? null : bar(cell, span));
  button.addEventListener("click", () => openCell(row, column));
  return el("td", { class: kind }, button);
}
function overallCell(row, key, columns, start) {
  let value;
  if (key === "coverage") value = String(row.coverage);
  else if (key === "mean") value = score(hierarchyMean(row, primary(columns)));
  else value = (row.indices[key.slice(6)] || {}).value?.toFixed(1) ?? "";
  return el("td", { class: `n plain${start ? " start" : ""}` }, value);
}
function costCell(row, key, start) {
  let value = "";
  if (row.cost && key === "scaling") value = scalingText(Object.values(row.cells));
  else if (row.cost && COSTS[key].of(row.cost) !== null) value = COSTS[key].show(COSTS[key].of(row.cost));
  return el("td", { class: `n plain${start ? " start" : ""}` }, value);
}
// The first rows are rendered at once and the others later, in parts, so that a long table opens fast.
const AT_ONCE = 60;
let appending = 0;
function appendLater(body, rows, line) {
  clearTimeout(appending);
  $("table").setAttribute("aria-busy", String(rows.length > 0));
  if (!rows.length) return;
  appending = setTimeout(() => {
    body.append(...rows.slice(0, 3 * AT_ONCE).map(line));
    appendLater(body, rows.slice(3 * AT_ONCE), line);
  }, 30);
}
function renderTable() {
  const columns = visibleColumns();
  const rows = visibleRows(columns);
  const measured = sorted(rows.filter((row) => !row.quoted), columns);
  const quoted = sorted(rows.filter((row) => row.quoted), columns);
  const overall = overallColumns(rows);
  const bests = columns.map((column) => bestIn(column, rows));
  const spans = columns.map((column) => range(column, rows));
  const starts = columns.map((column, i) => i === 0 || columns[i - 1].capability !== column.capability);
  const line = (row) => el("tr", { "data-row": row.id, class: row.quoted ? "quoted" : "" },
    nameCell(row),
    ...overall.map((key, i) => overallCell(row, key, columns, i === 0)),
    ...columns.map((column, i) => scoreCell(row, column, starts[i], bests[i], spans[i])),
    ...costColumns().map((key, i) => costCell(row, key, i === 0)));
  const width = 1 + overall.length + columns.length + costColumns().length;
  const body = el("tbody", {}, ...measured.slice(0, AT_ONCE).map(line));
  const bodies = [body];
  if (quoted.length) {
    const band = el("tr", { class: "band" }, el("th", { colspan: width, scope: "colgroup" }, el("span", {}, t("quotedBand"))));
    bodies.push(el("tbody", {}, band, ...quoted.map(line)));
  }
  const caption = el("caption", { class: "hidden" }, t("scores"));
  const table = el("table", { class: state.intervals ? "" : "no-intervals" }, caption, head(columns, overall), ...bodies);
  const place = $("table");
  const at = [place.scrollLeft, place.scrollTop];
  place.replaceChildren(rows.length ? table : el("p", { class: "empty" }, t("noRows")));
  if (at[0] || at[1]) [place.scrollLeft, place.scrollTop] = at;
  appendLater(body, measured.slice(AT_ONCE), line);
  const by = state.sort ? `; ${t("sortedBy", sortTitle())}` : "";
  $("status").textContent = t("status", rows.length, ROWS.size, columns.length, BOARD.columns.length) + by;
}
function sortTitle() {
  const key = state.sort.replace(/^(cost|index):/, "");
  return key in WORDS ? t(key) : key;
}
