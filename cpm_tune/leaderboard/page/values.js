// The state of the page: filters, sort, chosen rows; and the values that follow from them.
const START = { capability: "", dataset: "", backbone: "", delta: "", base: "", search: "" };
const state = { ...START, intervals: true, cost: true, quoted: true, sort: null, down: true, chosen: [] };
const COLUMNS = new Map(BOARD.columns.map((c) => [c.id, c]));
const ROWS = new Map();
for (const row of BOARD.rows) ROWS.set(row.id, { ...row, quoted: false });
for (const row of BOARD.quoted) {
  const cells = {};
  for (const [id, f] of Object.entries(row.cells)) cells[id] = { ...f, mean: f.value, low: null, high: null, std: null };
  ROWS.set(row.id, { ...row, cells, quoted: true, backbone: row.name, delta: row.setting, settings: {}, coverage: Object.keys(cells).length });
}
const measuredIn = new Set(BOARD.rows.flatMap((row) => Object.keys(row.cells)));

function rowName(row) {
  return row.quoted ? `${row.name}, ${row.setting}` : row.id;
}
function average(values) {
  return values.reduce((a, b) => a + b, 0) / values.length;
}
// A score in the displayed unit: as scored, or 100 x score / the base row's. A published base row
// counts however it was measured, as in CUGE's indices.
function shown(cell, id, key = "mean") {
  if (!cell || cell[key] === null || cell[key] === undefined) return null;
  if (!state.base) return cell[key];
  const { cells } = ROWS.get(state.base);
  const base = cells[id] || cells[`${COLUMNS.get(id).task}#quoted`];
  if (!base || !base.mean) return null;
  if (COLUMNS.get(id).higher_is_better) return (100 * cell[key]) / base.mean;
  return cell[key] ? (100 * base.mean) / cell[key] : null;
}
function better(id) {
  return state.base || COLUMNS.get(id).higher_is_better ? 1 : -1;
}
function visibleColumns() {
  return BOARD.columns.filter((c) =>
    (!state.capability || c.capability === state.capability) &&
    (!state.dataset || c.task === state.dataset) &&
    (measuredIn.has(c.id) || state.quoted));
}
// One column per dataset (the first measured one): means are taken over these.
function primary(columns) {
  const seen = new Map();
  for (const column of columns) {
    if (measuredIn.has(column.id) && column.higher_is_better && !seen.has(column.task)) seen.set(column.task, column);
  }
  return [...seen.values()];
}
function visibleRows(columns) {
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  return [...ROWS.values()].filter((row) => {
    if (row.quoted ? !state.quoted : state.backbone && row.backbone !== state.backbone) return false;
    if (!row.quoted && state.delta && row.delta !== state.delta) return false;
    if (!columns.some((c) => row.cells[c.id])) return false;
    const name = rowName(row).toLowerCase();
    return words.every((word) => name.includes(word));
  });
}
// Dataset -> kind -> capability -> overall. Null if the row lacks one of the columns.
function hierarchyMean(row, columns) {
  if (!columns.length) return null;
  const tree = new Map();
  for (const column of columns) {
    const value = shown(row.cells[column.id], column.id);
    if (value === null) return null;
    const kinds = tree.get(column.capability) || new Map();
    kinds.set(column.kind, [...(kinds.get(column.kind) || []), value]);
    tree.set(column.capability, kinds);
  }
  return average([...tree.values()].map((kinds) => average([...kinds.values()].map(average))));
}
function capabilityMean(row, capability) {
  return hierarchyMean(row, primary(BOARD.columns).filter((c) => c.capability === capability));
}
function bestIn(column, rows) {
  const means = rows.filter((r) => !r.quoted && r.cells[column.id]).map((r) => r.cells[column.id].mean);
  if (means.length < 2) return null;
  return column.higher_is_better ? Math.max(...means) : Math.min(...means);
}
function sortKey(row, columns) {
  const by = state.sort;
  if (by === "row") return rowName(row);
  if (by === "coverage") return row.coverage;
  if (by === "mean") return hierarchyMean(row, primary(columns));
  if (by.startsWith("index:")) return (row.indices[by.slice(6)] || {}).value ?? null;
  if (by.startsWith("cost:")) return row.cost ? COSTS[by.slice(5)].of(row.cost) : null;
  return shown(row.cells[by], by);
}
function sorted(rows, columns) {
  if (!state.sort) return rows;
  const keyed = rows.map((row, i) => ({ row, i, key: sortKey(row, columns) }));
  const sign = state.down ? -1 : 1;
  keyed.sort((a, b) => {
    if ((a.key === null) !== (b.key === null)) return a.key === null ? 1 : -1;
    if (a.key === b.key) return a.i - b.i;
    if (typeof a.key === "string") return sign * a.key.localeCompare(b.key);
    return sign * (a.key - b.key);
  });
  return keyed.map((k) => k.row);
}
function chosenRows() {
  return state.chosen.filter(Boolean).map((id) => ROWS.get(id));
}
// A chosen row keeps its colour: its place among eight.
function colour(id) {
  const at = state.chosen.indexOf(id);
  return at < 0 ? null : `var(--c${at})`;
}
function choose(id, on) {
  if (!on) {
    state.chosen[state.chosen.indexOf(id)] = null;
    return true;
  }
  let free = state.chosen.indexOf(null);
  if (free < 0) free = state.chosen.length;
  if (free > 7) return false;
  state.chosen[free] = id;
  return true;
}
