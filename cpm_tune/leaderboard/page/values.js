// What the table shows: which columns and rows, a row's score, and the places that it may have.
// Official columns stand alone by default; trials, other templates and published results are behind
// switches.

/** The table's settings, as a link has them. */
const START = { score: "", find: "", backbone: "", delta: "", base: "", trials: false, templates: false, published: false, capabilities: false, sort: "score", up: false, open: /** @type {string[]} */ ([]) };
const state = { ...START };

/** @param {URLSearchParams} query */
function readState(query) {
  Object.assign(state, START, { open: query.getAll("open").filter((name) => name !== CLOSED) });
  for (const key of /** @type {const} */ (["score", "find", "backbone", "delta", "base"])) state[key] = query.get(key) ?? "";
  for (const key of /** @type {const} */ (["trials", "templates", "published", "capabilities", "up"])) state[key] = query.get(key) === "true";
  state.sort = query.get("sort") ?? "score";
  if (!query.getAll("open").some((name) => name !== "cost")) state.open.push(...revealed());
  readChosen(query);
}
/** In a link: every capability is folded, though a switch would unfold some. */
const CLOSED = "-";
/** Capabilities with columns that a switch shows: they are open unless the link says which are. */
function revealed() {
  const kinds = [state.trials ? "trial" : "", state.templates ? "template" : "", state.published ? "published" : ""];
  return [...new Set(BOARD.columns.filter((c) => kinds.includes(kindOf(c))).map((c) => c.capability))];
}
function rememberState() {
  const closed = revealed().length && !state.open.some((name) => name !== "cost");
  remember({ ...state, open: closed ? [...state.open, CLOSED] : state.open, sort: state.sort === "score" ? "" : state.sort, rows: chosenIds() });
}

/** @param {Column} column @returns {"official" | "template" | "trial" | "published"} */
function kindOf(column) {
  if (!measuredIn.has(column.id)) return "published";
  if (!column.official) return "trial";
  return mainOf.get(column.task) === column ? "official" : "template";
}
/** The official column of each dataset: the first, which has most runs. @type {Map<string, Column>} */
let mainOf = new Map();
function findMains() {
  mainOf = new Map();
  for (const column of BOARD.columns) {
    if (measuredIn.has(column.id) && column.official && !mainOf.has(column.task)) mainOf.set(column.task, column);
  }
}
/** Without official results, trials are all there is. */
function onlyTrials() {
  return mainOf.size === 0 && measuredIn.size > 0;
}
/** Whether runs on sample data, with limits or cut short are shown. */
function withTrials() {
  return state.trials || onlyTrials();
}
function shownColumns() {
  return BOARD.columns.filter((column) => {
    const kind = kindOf(column);
    return kind === "official" || (kind === "trial" && withTrials()) || (kind === "template" && state.templates) || (kind === "published" && state.published);
  });
}
/** One column per dataset, over which means are taken: the official ones; of trials if there are none. */
function meanColumns() {
  const seen = new Map(mainOf);
  if (onlyTrials()) for (const column of BOARD.columns) if (measuredIn.has(column.id) && !seen.has(column.task)) seen.set(column.task, column);
  return BOARD.columns.filter((column) => seen.get(column.task) === column && column.higher_is_better);
}
/** A row's cell, unless it is a trial and those are hidden. @param {Row} row @param {string} id @returns {Cell | Quote | null} */
function cellOf(row, id) {
  const cell = row.cells[id];
  return cell && !("few" in cell && cell.few && !withTrials()) ? cell : null;
}
/** @param {Row} row */
function rowName(row) {
  return row.quoted ? `${row.name}, ${row.setting}` : row.id;
}

/**
 * A value in the displayed unit: as scored, or 100 x score / the base row's. A published base row counts
 * however it was measured, as in CUGE's indices.
 * @param {Row} row @param {string} id @param {"mean" | "low" | "high" | "std"} [key]
 */
function shown(row, id, key = "mean") {
  const value = cellOf(row, id)?.[key] ?? null;
  if (!state.base) return value;
  const base = ROWS.get(state.base);
  const column = COLUMNS.get(id);
  if (value === null || !base || !column) return value;
  const against = base.cells[id] || base.cells[`${column.task}#quoted`];
  if (!against || !against.mean) return null;
  if (column.higher_is_better) return (100 * value) / against.mean;
  return value ? (100 * against.mean) / value : null;
}
/** 1 if more is better in a column, else -1. @param {string} id */
function signOf(id) {
  return state.base || !COLUMNS.has(id) || COLUMNS.get(id)?.higher_is_better ? 1 : -1;
}

/** The weight of each column in the mean over dataset, kind, capability. @param {Column[]} columns */
function weightsOf(columns) {
  /** @param {(c: Column) => string} key @param {Column[]} among */
  const count = (key, among) => new Set(among.map(key)).size;
  const capabilities = count((c) => c.capability, columns);
  return columns.map((column) => {
    const same = columns.filter((c) => c.capability === column.capability);
    const kind = same.filter((c) => c.kind === column.kind);
    return 1 / (capabilities * count((c) => c.kind, same) * kind.length);
  });
}
/**
 * @typedef {{value: number | null, low: number | null, high: number | null, has: number, of: number, tested?: Places | null}} Score
 * A row's score: a mean or an index is blank if one of its datasets is missing.
 */
/**
 * The mean over columns through the hierarchy, with its 95% interval: the distances of the columns'
 * limits, squared and added (Zou and Donner, Statistics in Medicine 2008).
 * @param {Row} row @param {Column[]} columns @param {number[]} weights @returns {Score}
 */
function meanOf(row, columns, weights) {
  let [value, below, above, has, known] = [0, 0, 0, 0, true];
  columns.forEach((column, i) => {
    const middle = shown(row, column.id);
    if (middle === null) return;
    const [low, high] = [shown(row, column.id, "low"), shown(row, column.id, "high")];
    has += 1;
    value += weights[i] * middle;
    if (low === null || high === null) known = false;
    else [below, above] = [below + (weights[i] * (middle - low)) ** 2, above + (weights[i] * (high - middle)) ** 2];
  });
  const whole = has === columns.length && has > 0;
  return {
    value: whole ? value : null, has, of: columns.length,
    low: whole && known ? value - Math.sqrt(below) : null,
    high: whole && known ? value + Math.sqrt(above) : null,
  };
}
/** Whether paired tests (--places) are of the mean over these columns. @param {Column[]} columns */
function testsMeanOf(columns) {
  const tested = Object.values(BOARD.indices.mean?.columns ?? {});
  return tested.length === columns.length && columns.every((c) => tested.includes(c.id));
}
/** What places are of: a capability or a dataset if rows are in its order, else the score. */
function orderKey() {
  return state.sort.startsWith("capability:") || COLUMNS.has(state.sort) ? state.sort : state.score;
}
/** A row's score by a key: "mean", "index:NAME", "capability:NAME", or a column's id. @param {string} key @returns {(row: Row) => Score} */
function scoring(key) {
  if (key === "mean") {
    const columns = meanColumns();
    const weights = weightsOf(columns);
    const tested = testsMeanOf(columns);
    return (row) => ({ ...meanOf(row, columns, weights), tested: tested ? row.indices.mean?.places : null });
  }
  if (key.startsWith("capability:")) {
    const columns = meanColumns().filter((c) => c.capability === key.slice(11));
    const weights = weightsOf(columns);
    return (row) => meanOf(row, columns, weights);
  }
  if (key.startsWith("index:")) {
    const name = key.slice(6);
    const of = Object.keys(BOARD.indices[name]?.columns ?? {}).length;
    return (row) => {
      const index = row.indices[name];
      return { value: index?.value ?? null, low: null, high: null, of, has: of - (index?.missing.length ?? of), tested: index?.places };
    };
  }
  return (row) => {
    const cell = cellOf(row, key);
    const tested = cell && "places" in cell ? cell.places : null;
    return { value: shown(row, key), low: shown(row, key, "low"), high: shown(row, key, "high"), has: cell ? 1 : 0, of: 1, tested };
  };
}
/** Whether places are those that paired tests leave (--places), of all rows that have a score. @param {Map<string, Score>} scores */
function areTested(scores) {
  const scored = [...scores.values()].filter((s) => s.value !== null);
  return scored.length > 0 && scored.every((s) => s.tested);
}
/**
 * The places that each row may have: those that paired tests leave, else those that 95% intervals
 * leave: a row is before another if its whole interval is.
 * @param {Map<string, Score>} scores of measured rows @param {number} sign @returns {Map<string, Places>}
 */
function placesOf(scores, sign) {
  const scored = [...scores].filter(([, s]) => s.value !== null);
  if (areTested(scores)) return new Map(scored.map(([id, s]) => [id, /** @type {Places} */ (s.tested)]));
  const known = scored.filter(([, s]) => s.low !== null && s.high !== null);
  const ends = known.map(([id, s]) => ({ id, worst: sign > 0 ? Number(s.low) : -Number(s.high), best: sign > 0 ? Number(s.high) : -Number(s.low) }));
  const worsts = ends.map((e) => e.worst).sort((a, b) => a - b);
  const bests = ends.map((e) => e.best).sort((a, b) => a - b);
  return new Map(ends.map(({ id, worst, best }) => [id, { first: 1 + worsts.length - countUpTo(worsts, best), last: bests.length - countBelow(bests, worst), of: ends.length }]));
}
/** How many of the sorted values are at most `value`. @param {number[]} values @param {number} value */
function countUpTo(values, value) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}
/** @param {number[]} values @param {number} value */
function countBelow(values, value) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The controls of a cell: majority, the best shortcut, zero-shot. @param {Row} row @param {Column} column @returns {{name: string, kind: string, value: number}[]} */
function controlsOf(row, column) {
  const sign = column.higher_is_better ? 1 : -1;
  const found = [];
  if (column.majority !== null) found.push({ name: t("majorityShort"), kind: "majority", value: column.majority });
  const [best] = Object.entries(column.shortcuts).sort((a, b) => sign * (b[1] - a[1]));
  if (best) found.push({ name: t("shortcut", shortcutName(best[0])), kind: "shortcut", value: best[1] });
  const cell = cellOf(row, column.id);
  if (cell && "zero" in cell && cell.zero !== null) found.push({ name: t("zeroShot"), kind: "zero", value: cell.zero });
  return found;
}
/**
 * The strongest control that a cell is below, or not above by more than its interval.
 * @param {Row} row @param {Column} column @returns {{name: string, kind: string, value: number, below: boolean} | null}
 */
function unbeaten(row, column) {
  const cell = cellOf(row, column.id);
  if (!cell || row.quoted || cell.low === null || cell.high === null) return null;
  const sign = column.higher_is_better ? 1 : -1;
  const [best] = controlsOf(row, column).sort((a, b) => sign * (b.value - a.value));
  if (!best) return null;
  if (sign * (cell.mean - best.value) < 0) return { ...best, below: true };
  return sign * ((sign > 0 ? cell.low : cell.high) - best.value) <= 0 ? { ...best, below: false } : null;
}

/** Rows with a cell in one of the columns that fit the filters. @param {Column[]} columns */
function shownRows(columns) {
  const words = state.find.toLowerCase().split(/\s+/).filter(Boolean);
  return [...ROWS.values()].filter((row) => {
    if (row.quoted ? !state.published : (state.backbone && row.backbone !== state.backbone) || (state.delta && row.delta !== state.delta)) return false;
    if (!columns.some((c) => cellOf(row, c.id))) return false;
    const name = rowName(row).toLowerCase();
    return words.every((word) => name.includes(word));
  });
}

// Chosen rows, for comparisons: at most eight; each keeps its colour, its place among them.
/** @type {(string | null)[]} */
let chosen = [];
/** @param {URLSearchParams} query */
function readChosen(query) {
  const ids = query.getAll("rows").filter((id) => ROWS.has(id)).slice(0, 8);
  if (ids.join("\n") !== chosenIds().join("\n")) chosen = ids;
}
function chosenIds() {
  return /** @type {string[]} */ (chosen.filter((id) => id !== null && ROWS.has(id)));
}
function chosenRows() {
  return chosenIds().map((id) => /** @type {Row} */ (ROWS.get(id)));
}
/** @param {string} id */
function colour(id) {
  const at = chosen.indexOf(id);
  return at < 0 ? null : `var(--c${at})`;
}
/** Choose a row or not; false if there are eight. @param {string} id @param {boolean} on */
function choose(id, on) {
  if (!on) {
    chosen[chosen.indexOf(id)] = null;
    return true;
  }
  let free = chosen.indexOf(null);
  if (free < 0) free = chosen.length;
  if (free > 7) return false;
  chosen[free] = id;
  return true;
}
