// The view "table": a row's place, its score, the seven capabilities folded, and what it costs.
const FEW = 6; // columns that need not be folded
const AT_ONCE = 60; // rows drawn at first, and at a time when the reader comes to the end

view({ name: "table", title: "scores", inMenu: true, render: renderTable });

/** @param {HTMLElement} place @param {Route} here */
function renderTable(place, here) {
  readState(here.query);
  const columns = shownColumns();
  state.score = scoreKey(columns);
  place.replaceChildren(
    el("h2", { id: "scores", class: "hidden" }, t("scores")),
    ...(onlyTrials() ? [el("p", { class: "banner" }, t("onlyTrials"))] : []),
    ...(ROWS.size ? [renderControls(columns)] : []),
    el("div", { class: "above" }, el("p", { id: "verdict" }), el("p", { id: "status", class: "quiet small", role: "status" }), leftOutLink()),
    ROWS.size && !state.capabilities ? el("p", { class: "narrow quiet small", id: "columns-hidden" }, t("columnsHidden", t("capabilities"))) : "",
    el("div", { id: "table" }),
    legend());
  drawRows();
}
/** The number of results that were left out; it leads to what they are. */
function leftOutLink() {
  const n = BOARD.left_out.length;
  return n ? el("p", { class: "small" }, el("a", { id: "left-out-link", href: href("about", [], { at: "left-out" }) }, t("leftOutN", n))) : null;
}
/** Draw the rows again, after a filter, a switch or another order; it is in the address then. */
function changed() {
  rememberState();
  renderView();
}

/** What rows are ordered by: as chosen, else the mean if most rows have it, else the fullest dataset; switches do not change it. @param {Column[]} columns */
function scoreKey(columns) {
  if (scoreOptions(columns).some(([key]) => key === state.score)) return state.score;
  const means = meanColumns();
  const usual = onlyTrials() ? columns : columns.filter((c) => kindOf(c) === "official");
  /** @param {Row} row @param {Column} column */
  const has = (row, column) => { const cell = row.cells[column.id]; return Boolean(cell) && (onlyTrials() || !("few" in cell && cell.few)); };
  const rows = BOARD.rows.filter((row) => usual.some((c) => has(row, c)));
  const whole = rows.filter((row) => means.every((c) => has(row, c))).length;
  if (means.length > 1 && 2 * whole >= rows.length) return "mean";
  const filled = usual.filter((c) => measuredIn.has(c.id)).map((c) => ({ id: c.id, n: rows.filter((row) => has(row, c)).length }));
  filled.sort((a, b) => b.n - a.n);
  return filled[0]?.id ?? "mean";
}
/** @param {Column[]} columns @returns {[string, string][]} */
function scoreOptions(columns) {
  const n = meanColumns().length;
  return [
    ...(n > 1 ? [/** @type {[string, string]} */ (["mean", t(onlyTrials() ? "trialMean" : "officialMean", n)])] : []),
    ...Object.keys(BOARD.indices).filter((name) => name !== "mean" && [...ROWS.values()].some((row) => row.indices[name]?.value != null))
      .map((name) => /** @type {[string, string]} */ ([`index:${name}`, indexName(name)])),
    ...columns.map((c) => /** @type {[string, string]} */ ([c.id, columnName(c)])),
  ];
}
const USUAL = new Set(["prompts as they are", "all rows of the given files"]);
/** A dataset's name with what tells the column from its official one. @param {Column} column */
function columnName(column) {
  const kind = kindOf(column);
  if (kind === "official") return column.task;
  if (kind === "published") return `${column.task} · ${t("quoted")}`;
  const usual = new Set(mainOf.get(column.task)?.apart ?? []);
  const others = BOARD.columns.filter((c) => c.task === column.task && c !== column && measuredIn.has(c.id));
  const telling = column.apart.filter((one) => !usual.has(one) && !USUAL.has(one));
  const alike = others.filter((c) => c.notes.join() === column.notes.join());
  const notes = kind === "trial" ? [...column.notes, ...telling.filter((one) => alike.some((c) => !c.apart.includes(one)))] : telling;
  const apart = notes.filter((one) => !others.length || !others.every((c) => c.notes.includes(one) || c.apart.includes(one)));
  const parts = apart.length ? apart : notes;
  return `${column.task} · ${parts.map((one) => noteText(one, true)).join(t("comma")) || column.id}`;
}

/** @param {Column[]} columns */
function renderControls(columns) {
  /** @param {string} id @param {string} name @param {HTMLElement} control */
  const labelled = (id, name, control) => {
    control.id = id;
    return el("label", {}, el("span", {}, name), control);
  };
  /** @param {"score" | "backbone" | "delta" | "base"} key @param {[string, string][]} pairs */
  const select = (key, pairs) => {
    const node = /** @type {HTMLSelectElement} */ (el("select", {}));
    options(node, pairs, state[key]);
    node.addEventListener("change", () => { state[key] = node.value; if (key === "score") Object.assign(state, { sort: "score", up: false }); changed(); });
    return node;
  };
  const find = /** @type {HTMLInputElement} */ (el("input", { type: "search", autocomplete: "off", value: state.find }));
  find.addEventListener("input", () => { state.find = find.value; rememberState(); drawRows(); });
  const reset = el("button", { type: "button", id: "reset" }, t("reset"));
  reset.addEventListener("click", () => { Object.assign(state, START, { open: [] }); changed(); });
  const any = /** @type {[string, string]} */ (["", t("all")]);
  /** @param {(row: MeasuredRow) => string} of @returns {[string, string][]} */
  const values = (of) => [any, ...[...new Set(BOARD.rows.map(of))].sort().map((v) => /** @type {[string, string]} */ ([v, v]))];
  return el("div", { class: "filters" },
    labelled("f-score", t("score"), select("score", scoreOptions(columns))),
    labelled("f-find", t("find"), find),
    alsoShow(),
    moreFilters(() => [
      labelled("f-backbone", t("backbone"), select("backbone", values((row) => row.backbone))),
      labelled("f-delta", t("delta"), select("delta", values((row) => row.delta))),
      labelled("f-base", t("values"), select("base", [["", t("raw")], ...[...ROWS.values()].map((r) => /** @type {[string, string]} */ ([r.id, t("relative", rowName(r))]))])),
      reset,
    ]));
}
/** Filters that are made when they are opened: they list all rows. @param {() => HTMLElement[]} make */
function moreFilters(make) {
  const place = el("div", { class: "filters" });
  const more = el("details", { id: "more" }, el("summary", {}, t("moreFilters")), place);
  more.addEventListener("toggle", () => { if (more.open && !place.hasChildNodes()) place.append(...make()); });
  if (state.backbone || state.delta || state.base || moreOpen) {
    place.append(...make());
    more.open = true;
  }
  more.addEventListener("toggle", () => { moreOpen = more.open; });
  return more;
}
let moreOpen = false;
/** @param {"Row" | "Column"} what @param {number} n */
function counted(what, n) {
  return n === 1 ? t(`one${what}`) : t(`n${what}s`, n);
}
/** The switches; where there is only that for small screens, they are for small screens. */
function alsoShow() {
  const all = switches();
  return el("fieldset", { class: all.length > 1 ? null : "narrow" }, el("legend", {}, t("alsoShow")), ...all);
}
/** Switches that say how many rows and columns they hide. */
function switches() {
  /** @param {"trials" | "templates" | "published"} key @param {number} rows @param {number} columns @param {boolean} forced */
  const one = (key, rows, columns, forced = false) => {
    if (!rows && !columns && !forced) return [];
    const box = /** @type {HTMLInputElement} */ (el("input", { type: "checkbox", id: `show-${key}` }));
    box.checked = state[key] || forced;
    box.disabled = forced;
    box.addEventListener("change", () => {
      state[key] = box.checked;
      if (box.checked) state.open = [...new Set([...state.open, ...revealed()])];
      changed();
    });
    const counts = [rows ? counted("Row", rows) : "", columns ? counted("Column", columns) : ""].filter(Boolean).join(t("comma"));
    return [el("label", { class: "tick", title: t(`${key}Note`) }, box, el("span", {}, t(key), el("small", {}, ` ${counts}`)))];
  };
  const capabilities = el("input", { type: "checkbox", id: "show-capabilities" });
  capabilities.checked = state.capabilities;
  capabilities.addEventListener("change", () => { state.capabilities = capabilities.checked; changed(); });
  /** @param {string} kind */
  const of = (kind) => BOARD.columns.filter((c) => kindOf(c) === kind);
  /** @param {(row: MeasuredRow) => boolean} hidden */
  const rows = (hidden) => BOARD.rows.filter(hidden).length;
  const kinds = new Map(BOARD.columns.map((c) => [c.id, kindOf(c)]));
  const trialOnly = rows((row) => Object.entries(row.cells).every(([id, cell]) => kinds.get(id) === "trial" || cell.few));
  const templateOnly = rows((row) => Object.keys(row.cells).every((id) => kinds.get(id) === "template"));
  return [
    ...one("trials", trialOnly, of("trial").length, onlyTrials()),
    ...one("templates", templateOnly, of("template").length),
    ...one("published", BOARD.quoted.length, of("published").length),
    el("label", { class: "tick narrow" }, capabilities, el("span", {}, t("capabilities"))),
  ];
}
/** The shown rows with all columns, as CSV. */
function csvButton() {
  const button = el("button", { type: "button", id: "csv" }, t("csv"));
  button.addEventListener("click", () => {
    const { columns, lines } = computeLines();
    const head = ["first", "last", "row", "backbone", "delta", "quoted", scoreTitle(), "low", "high", ...columns.flatMap((c) => [c.id, `${c.id} low`, `${c.id} high`]), "n_trainable", "seconds", "peak_memory_bytes", "forgetting"];
    const body = lines.map(({ row, score: s, places }) => [places?.first ?? null, places?.last ?? null, rowName(row), row.backbone, row.delta, row.quoted ? "quoted" : "measured", s.value, s.low, s.high,
      ...columns.flatMap((c) => [shown(row, c.id), shown(row, c.id, "low"), shown(row, c.id, "high")]), row.cost?.n_trainable ?? null, row.cost?.seconds ?? null, row.cost?.peak_memory_bytes ?? null, row.cost?.forgetting ?? null]);
    download("leaderboard.csv", "text/csv", csv([head, ...body]));
  });
  return button;
}
function legend() {
  /** @param {string} kind @param {string} name */
  const mark = (kind, name) => el("span", { class: "key" }, el("i", { class: kind === "range" ? kind : `mark ${kind}`, "aria-hidden": "true" }), name);
  return el("div", { class: "below-table quiet small" },
    csvButton(),
    el("p", { id: "legend" }),
    el("p", {}, t("bars"), " ", mark("range", t("interval")), mark("majority", t("majority")), mark("shortcut", t("bestShortcut")), mark("zero", t("zeroShot"))));
}

/**
 * What is drawn: columns by capability, rows with their scores and places, in order.
 * `ordered`: what its places are of, which is the score unless rows are in the order of another column.
 * @typedef {{row: Row, score: Score, ordered: Score, places: Places | null}} Line
 */
function computeLines() {
  const columns = shownColumns();
  const score = scoring(state.score);
  const ordered = orderKey() === state.score ? score : scoring(orderKey());
  const sign = signOf(orderKey());
  // Places are among all measured rows, whatever is filtered.
  const all = new Map(BOARD.rows.filter((row) => columns.some((c) => cellOf(row, c.id))).map((row) => [row.id, ordered(row)]));
  const places = placesOf(all, sign);
  const lines = shownRows(columns).map((row) => {
    const by = all.get(row.id) ?? ordered(row);
    return { row, score: ordered === score ? by : score(row), ordered: by, places: places.get(row.id) ?? null };
  });
  return { columns, lines: inOrder(lines, sign), tested: areTested(all) };
}
/** @param {Line[]} lines @param {number} sign @returns {Line[]} */
function inOrder(lines, sign) {
  const [by, up] = [state.sort, state.up];
  /** @param {Line} line @returns {number | string | null} */
  const keyOf = ({ row, ordered }) => {
    if (by === "row") return rowName(row);
    if (by.startsWith("cost:")) return row.cost ? COSTS[by.slice(5)].of(row.cost) : null;
    return ordered.value;
  };
  // Best first: the most, but the least of costs and of metrics such as perplexity; names from A.
  const least = by === "row" || (by.startsWith("cost:") && !COSTS[by.slice(5)].more) || (!by.startsWith("cost:") && sign < 0);
  const direction = (least ? 1 : -1) * (up ? -1 : 1);
  const keyed = lines.map((line, i) => ({ line, i, key: keyOf(line) }));
  keyed.sort((a, b) => {
    if (a.line.row.quoted !== b.line.row.quoted) return a.line.row.quoted ? 1 : -1;
    if (a.key === null || b.key === null) return a.key === b.key ? b.line.score.has - a.line.score.has || a.i - b.i : a.key === null ? 1 : -1;
    if (typeof a.key === "string" || typeof b.key === "string") return direction * String(a.key).localeCompare(String(b.key));
    return direction * (a.key - b.key) || a.i - b.i;
  });
  return keyed.map((k) => k.line);
}

/** @typedef {{name: string, columns: Column[], mains: Column[], weights: number[], open: boolean, few: boolean, alone: boolean}} Group */
/** @param {Column[]} columns @returns {Group[]} */
function groupsOf(columns) {
  const means = new Set(meanColumns());
  const names = [...new Set(columns.map((c) => c.capability))];
  const few = columns.length <= FEW;
  return names.map((name) => {
    const inside = columns.filter((c) => c.capability === name);
    const mains = inside.filter((c) => means.has(c));
    return { name, columns: inside, mains, weights: weightsOf(mains), open: inside.length > 1 && (few || state.open.includes(name)), few, alone: names.length === 1 };
  });
}
/** The columns of a group that are drawn: all if it is open, else its only official one, if there is no mean. @param {Group} group */
function singles(group) {
  if (group.open) return group.columns;
  return hasMean(group) ? [] : [group.mains[0] ?? group.columns[0]];
}
/** Whether a group has a column for its mean. @param {Group} group */
function hasMean(group) {
  return group.mains.length > 1 && !(group.open && group.alone);
}
/** Costs that stay when they are folded; forgetting if it was measured. */
function foldedCosts() {
  return ["trained", "seconds", "memory", ...(forgets() ? ["forgetting"] : [])];
}
function forgets() {
  return BOARD.rows.some((row) => row.forgetting !== null);
}
function countsEnergy() {
  return BOARD.rows.some((row) => row.cost && known(COSTS.energy.of(row.cost)));
}
function costColumns() {
  return state.open.includes("cost") ? allCosts() : foldedCosts();
}
function allCosts() {
  const absent = [...(forgets() ? [] : ["forgetting"]), ...(countsEnergy() ? [] : ["energy"])];
  return [...Object.keys(COSTS).filter((key) => !absent.includes(key)), "scaling"];
}

function drawRows() {
  const { columns, lines, tested } = computeLines();
  const groups = groupsOf(columns);
  const spans = new Map(columns.map((column) => [column.id, spanOf(column, lines)]));
  const overall = spanOfScores(lines);
  const measured = lines.filter((line) => !line.row.quoted);
  const quoted = lines.filter((line) => line.row.quoted);
  const costs = costColumns();
  const width = 3 + groups.reduce((n, g) => n + singles(g).length + (hasMean(g) ? 1 : 0), 0) + costs.length;
  /** @param {Line} line */
  const draw = (line) => {
    const { row, places } = line;
    const shaded = places !== null && places.first === 1 && places.of > 1;
    const kinds = [row.quoted ? "quoted" : shaded ? "best" : "", line.score.value === null ? "unscored" : ""];
    return el("tr", { role: "row", "data-row": row.id, class: kinds.filter(Boolean).join(" ") },
      el("td", { role: "cell", class: "rank", "data-head": t("place") }, places ? placesText(places) : ""),
      nameCell(row),
      scoreCell(line, overall),
      ...groups.flatMap((group) => groupCells(row, group, spans)),
      ...costs.map((key, i) => costCell(row, key, i === 0)));
  };
  const body = el("tbody", { role: "rowgroup" }, ...measured.slice(0, AT_ONCE).map(draw));
  const bodies = [body];
  if (quoted.length) {
    const band = el("tr", { role: "row", class: "band" }, el("th", { role: "columnheader", colspan: width, scope: "colgroup" }, el("span", {}, t("quotedBand"))));
    bodies.push(el("tbody", { role: "rowgroup" }, band, ...quoted.map(draw)));
  }
  const table = el("table", { role: "table" }, el("caption", { class: "hidden" }, t("scores")), tableHead(groups, costs, tested), ...bodies);
  const place = $("table");
  place.className = state.capabilities ? "with-capabilities" : "";
  scrolls(place, false, state.capabilities);
  place.replaceChildren(lines.length ? table : el("p", { class: "empty" }, t(BOARD.rows.length ? "noRows" : BOARD.quoted.length ? "noRunsQuoted" : "noRuns")));
  table.style.setProperty("--cost-span", costs.length === 4 ? "3" : "4");
  if (table.scrollWidth > place.clientWidth) table.classList.add("dense");
  if (table.scrollWidth > place.clientWidth) scrolls(place, true);
  drawMore(body, measured.slice(AT_ONCE).map((line) => () => draw(line)));
  $("verdict").textContent = verdict(lines, tested);
  $("legend").textContent = t(tested ? "legendTested" : "legend");
  $("status").textContent = !ROWS.size ? "" : [t(ROWS.size === 1 ? "statusOne" : "status", lines.length, ROWS.size), t("sortedBy", sortTitle(), t(state.up ? "worstFirst" : "bestFirst"))].join(t("comma"));
}
/** Whether the table has a box of its own to scroll in. @param {HTMLElement} place @param {boolean} wide @param {boolean} [region] */
function scrolls(place, wide, region = wide) {
  place.classList.toggle("scroll", wide);
  place.classList.toggle("fits", !wide);
  for (const [name, value] of Object.entries({ role: "region", tabindex: "0", "aria-labelledby": "scores" })) {
    if (wide || region) place.setAttribute(name, value);
    else place.removeAttribute(name);
  }
}
/** A row's name without what all rows have. @param {Row} row */
function lineName(row) {
  const several = new Set(BOARD.rows.map((one) => one.backbone)).size > 1;
  const settings = Object.entries(row.settings).map(([k, v]) => `${settingName(k)}=${v}`);
  return [outside(row) ? "" : deltaName(row), ...settings, several || outside(row) ? row.backbone : "", controlName(row)].filter(Boolean).join(" ");
}
/** Which row is first by what rows are ordered by, and whether that is certain. @param {Line[]} lines @param {boolean} tested */
function verdict(lines, tested) {
  const first = lines.filter((line) => line.places?.first === 1);
  if (!first.length || (first[0].places?.of ?? 0) < 2) return "";
  const sign = signOf(orderKey());
  first.sort((a, b) => sign * (Number(b.ordered.value) - Number(a.ordered.value)));
  const some = first.slice(0, 3).map(({ row, ordered: s }) => `${lineName(row)} (${score(s.value)})`).join(t("comma"));
  const all = first.length > 3 ? t("andMore", some, first.length - 3) : some;
  return t(first.length === 1 ? (tested ? "testedCertain" : "certain") : tested ? "testedUncertain" : "uncertain", all);
}
/** Rows after the first ones are drawn when the reader comes near, on request, and to be printed. @type {(all: boolean) => void} */
let drawNext = () => {};
/** @param {HTMLElement} body @param {(() => HTMLElement)[]} waiting */
function drawMore(body, waiting) {
  const button = el("button", { type: "button", id: "more-rows" });
  const words = () => { button.textContent = t("moreRows", waiting.length); };
  drawNext = (all) => {
    body.append(...waiting.splice(0, all ? waiting.length : AT_ONCE).map((one) => one()));
    if (waiting.length) words();
    else button.remove();
  };
  if (!waiting.length) return;
  words();
  button.addEventListener("click", () => drawNext(false));
  new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting)) drawNext(false); }, { rootMargin: "600px" }).observe(button);
  $("table").append(button);
}

/** @param {string} key @param {string} title @param {string | null} under */
function sortButton(key, title, under = null) {
  const button = el("button", { type: "button", class: "sort", id: `sort-${key}`, "data-sort": key }, el("span", {}, title), under ? el("small", {}, under) : null);
  button.addEventListener("click", () => {
    state.up = state.sort === key ? !state.up : false;
    state.sort = key;
    changed();
  });
  return button;
}
/** @param {string} key */
function orderOf(key) {
  if (state.sort !== key) return null;
  const least = key === "row" || (key.startsWith("cost:") && key !== "cost:speed") || signOf(key === "score" ? state.score : key) < 0;
  return least !== state.up ? "ascending" : "descending";
}
/** @param {string} key @param {string} title @param {string | null} under @param {Record<string, any>} attributes */
function sortable(key, title, under, attributes = {}) {
  return el("th", { role: "columnheader", scope: "col", "aria-sort": orderOf(key), ...attributes }, sortButton(key, title, under));
}
/** @param {string} name @param {string} label @param {number} n */
function foldButton(name, label, n) {
  const open = state.open.includes(name);
  const button = el("button", { type: "button", class: "fold", id: `fold-${name}`, "aria-expanded": String(open), title: t(open ? "fold" : "unfold", n) }, label);
  button.addEventListener("click", () => {
    state.open = open ? state.open.filter((one) => one !== name) : [...state.open, name];
    changed();
  });
  return button;
}
/** @param {Group[]} groups @param {string[]} costs @param {boolean} tested */
function tableHead(groups, costs, tested) {
  const top = el("tr", { role: "row" },
    el("th", { role: "columnheader", class: "rank", rowspan: 2, scope: "col", title: t(tested ? "placeNoteTested" : "placeNote") }, t("place")),
    sortable("row", t("row"), null, { class: "name", rowspan: 2 }),
    sortable("score", scoreTitle(), scoreUnder(), { class: "n score-head", rowspan: 2 }),
    ...groups.map((g) => el("th", { role: "columnheader", class: "group start capability", scope: "colgroup", colspan: singles(g).length + (hasMean(g) ? 1 : 0), title: capabilityName(g.name) },
      g.columns.length > 1 && !g.few ? foldButton(g.name, shortCapability(g.name), g.columns.length) : shortCapability(g.name))),
    el("th", { role: "columnheader", class: "group start", scope: "colgroup", colspan: costs.length }, foldButton("cost", t("cost"), allCosts().length)));
  const second = el("tr", { role: "row" },
    ...groups.flatMap((g) => [
      ...(hasMean(g) ? [sortable(`capability:${g.name}`, t("mean"), t("ofDatasets", g.mains.length), { class: "n start capability" })] : []),
      ...singles(g).map((c, i) => sortable(c.id, columnName(c), metricName(c.metric), { class: `n capability${i || hasMean(g) ? "" : " start"}` })),
    ]),
    ...costs.map((key, i) => (key === "scaling" ? el("th", { role: "columnheader", scope: "col", class: "n" }, t("scaling"))
      : sortable(`cost:${key}`, t(key), key === "forgetting" ? t("forgettingUnit") : null, { class: `n${i ? "" : " start"}` }))));
  return el("thead", { role: "rowgroup" }, top, second);
}
function scoreTitle() {
  if (state.score === "mean") return t(onlyTrials() ? "trialMeanShort" : "officialMeanShort");
  if (state.score.startsWith("index:")) return indexName(state.score.slice(6));
  const column = COLUMNS.get(state.score);
  return column ? columnName(column) : "";
}
function scoreUnder() {
  if (state.score === "mean") return t("ofDatasets", meanColumns().length) + t("comma") + t("withInterval");
  const column = COLUMNS.get(state.score);
  return column ? metricName(column.metric) + t("comma") + t("withInterval") : null;
}
function sortTitle() {
  const key = state.sort;
  if (key === "score") return scoreTitle();
  if (key === "row") return t("row");
  if (key.startsWith("cost:")) return t(key.slice(5));
  if (key.startsWith("capability:")) return capabilityName(key.slice(11));
  const column = COLUMNS.get(key);
  return column ? columnName(column) : key;
}
/** @param {Places} places */
function placesText(places) {
  return places.first === places.last ? String(places.first) : `${places.first}–${places.last}`;
}

// An outside system has no delta: it is called by its own name.
/** @param {Row} row */
function outside(row) {
  return row.delta === "outside system";
}
/** @param {Row} row */
function nameCell(row) {
  const box = /** @type {HTMLInputElement} */ (el("input", { type: "checkbox", "aria-label": t("choose", rowName(row)) }));
  box.checked = chosen.includes(row.id);
  const place = el("span", { class: "pick-colour" });
  const paint = () => { const mark = colour(row.id); place.replaceChildren(...(mark ? [swatch(mark)] : [])); };
  paint();
  box.addEventListener("change", () => {
    if (!choose(row.id, box.checked)) {
      box.checked = false;
      $("status").textContent = t("tooMany");
    }
    paint();
    rememberState();
    renderMenu();
  });
  const settings = Object.entries(row.settings).map(([k, v]) => `${settingName(k)}=${v}`).join("  ");
  const control = controlName(row);
  return el("th", { role: "rowheader", class: "name", scope: "row" }, el("span", { class: "pick" }, box, place, el("span", {},
    el("a", { href: href("row", [row.id]) }, row.quoted ? row.name : outside(row) ? row.backbone : deltaName(row)),
    row.quoted ? el("span", { class: "tag" }, t("quoted")) : null,
    control ? el("span", { class: "tag" }, control) : null,
    el("small", {}, row.quoted ? row.setting : outside(row) ? t("outside") : row.backbone),
    settings ? el("small", {}, settings) : null)));
}
/** @param {Line} line @param {[number, number]} span */
function scoreCell({ row, score: s }, span) {
  const inner = [];
  const column = COLUMNS.get(state.score);
  if (s.value === null) {
    if (s.of > 1) inner.push(el("span", { class: "quiet small" }, t("datasetsOf", s.has, s.of)));
  } else {
    inner.push(el("b", {}, score(s.value)));
    if (s.low !== null && s.high !== null) inner.push(" ", el("small", {}, `${score(s.low)}–${score(s.high)}`), bar(s, span, column && !state.base ? controlsOf(row, column) : []));
    const flags = column ? [cutShort(row, column.id), flagOf(row, column)] : [meanFlag(row)];
    for (const flag of flags) if (flag) inner.push(flag);
  }
  return el("td", { role: "cell", class: `n score${orderKey() === state.score ? " by" : ""}`, "data-head": scoreTitle() }, ...inner);
}
/** @param {Row} row @param {Column} column */
function flagOf(row, column) {
  const worse = unbeaten(row, column);
  if (!worse || (worse.kind === "zero" && row.delta === "none")) return null;
  return el("small", { class: worse.below ? "flag below" : "flag", title: `${worse.name} ${score(worse.value)}` }, t(worse.below ? "below" : "notAbove", worse.name));
}
/** @param {Row} row */
function meanFlag(row) {
  const n = meanColumns().filter((column) => flagOf(row, column)).length;
  return n && state.score === "mean" ? el("small", { class: "flag" }, t("unbeatenIn", n)) : null;
}
/** @param {Row} row @param {Group} group @param {Map<string, [number, number]>} spans */
function groupCells(row, group, spans) {
  const cells = [];
  if (hasMean(group)) {
    const mean = meanOf(row, group.mains, group.weights);
    const text = mean.value !== null ? score(mean.value) : mean.has ? t("datasetsOf", mean.has, mean.of) : "";
    cells.push(el("td", { role: "cell", class: `n start cap${mean.value === null ? " quiet small" : ""}${state.sort === `capability:${group.name}` ? " by" : ""}`, "data-head": shortCapability(group.name) }, text));
  }
  for (const [i, column] of singles(group).entries()) {
    cells.push(columnCell(row, column, !i && !hasMean(group), spans, group.open || kindOf(column) !== "official" ? columnName(column) : shortCapability(group.name)));
  }
  return cells;
}
/** @param {Row} row @param {Column} column @param {boolean} start @param {Map<string, [number, number]>} spans @param {string} head */
function columnCell(row, column, start, spans, head) {
  const kind = `n cap${start ? " start" : ""}${state.sort === column.id ? " by" : ""}`;
  const value = shown(row, column.id);
  if (value === null) return el("td", { role: "cell", class: kind, "data-head": head });
  const [low, high] = [shown(row, column.id, "low"), shown(row, column.id, "high")];
  const known = low !== null && high !== null;
  const interval = known ? `${t("interval")} ${t("to", score(low), score(high))}` : "";
  const controls = controlsOf(row, column).map((c) => `${c.name} ${score(c.value)}`);
  return el("td", { role: "cell", class: kind, "data-head": head },
    el("a", { href: href("row", [row.id], { dataset: column.id }), class: "value", title: [interval, ...controls].filter(Boolean).join("\n") }, score(value)),
    known ? bar({ value, low, high }, spans.get(column.id) ?? [0, 1], state.base ? [] : controlsOf(row, column)) : null,
    cutShort(row, column.id), flagOf(row, column));
}
/** A mark for a cell whose training was cut short. @param {Row} row @param {string} id */
function cutShort(row, id) {
  const cell = cellOf(row, id);
  return cell && "few" in cell && cell.few ? el("small", { class: "flag" }, t("fewSteps")) : null;
}
/** @param {Row} row @param {string} key @param {boolean} start */
function costCell(row, key, start) {
  let value = "";
  if (row.cost && key === "scaling") value = scalingText([row.cost]);
  else if (row.cost) value = costText(key, row.cost);
  return el("td", { role: "cell", class: `n cost${start ? " start" : ""}`, "data-head": t(key) }, value);
}

/** The scale of a column's bars: all intervals and controls. @param {Column} column @param {Line[]} lines @returns {[number, number]} */
function spanOf(column, lines) {
  const values = [];
  for (const { row } of lines) {
    const [low, high] = [shown(row, column.id, "low"), shown(row, column.id, "high")];
    if (low !== null && high !== null) values.push(low, high);
    const zero = row.quoted ? null : row.cells[column.id]?.zero;
    if (zero && !state.base) values.push(zero);
  }
  if (column.majority !== null && !state.base) values.push(column.majority);
  if (!state.base) values.push(...Object.values(column.shortcuts));
  return extent(values);
}
/** @param {Line[]} lines */
function spanOfScores(lines) {
  const column = COLUMNS.get(state.score);
  return column ? spanOf(column, lines) : extent(lines.flatMap(({ score: s }) => (s.low !== null && s.high !== null ? [s.low, s.high] : [])));
}
/** @param {number[]} values @returns {[number, number]} */
function extent(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const v of values) {
    low = Math.min(low, v);
    high = Math.max(high, v);
  }
  return high > low ? [low, high] : [low - 1, low + 1];
}
/** @param {{value: number | null, low: number | null, high: number | null}} cell @param {[number, number]} span @param {{kind: string, value: number}[]} marks */
function bar(cell, [low, high], marks) {
  /** @param {number} v */
  const at = (v) => `${Math.max(0, Math.min(100, (100 * (v - low)) / (high - low)))}%`;
  const range = el("i", { class: "range" });
  range.style.left = at(Number(cell.low));
  range.style.right = `calc(100% - ${at(Number(cell.high))})`;
  const point = el("i", { class: "point" });
  point.style.left = at(Number(cell.value));
  return el("span", { class: "bar", "aria-hidden": "true" }, range, point, ...marks.map((one) => {
    const mark = el("i", { class: `mark ${one.kind}` });
    mark.style.left = at(one.value);
    return mark;
  }));
}

window.addEventListener("beforeprint", () => { if (route().name === "table") drawNext(true); });
