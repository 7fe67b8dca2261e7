// The data of the page, in parts. Each part is the JSON of an element `data-NAME`, parsed when it is
// first asked for: the table needs "board" alone. `update` replaces parts, as a server does that shows
// new runs without a reload (window.cpmTune.update): what is derived from them is computed again, and
// the view that is open is drawn again with its filters, its place and its focus.
/** @type {Partial<Parts>} */
const LOADED = {};

/**
 * A part of the data.
 * @template {keyof Parts} Name
 * @param {Name} name
 * @returns {Parts[Name]}
 */
function part(name) {
  if (LOADED[name] === undefined) LOADED[name] = JSON.parse($(`data-${name}`).textContent ?? "");
  return /** @type {Parts[Name]} */ (LOADED[name]);
}

/** @type {Board} */
let BOARD;
/** @type {Map<string, Column>} */
let COLUMNS = new Map();
/** Measured and published rows, by id. @type {Map<string, Row>} */
let ROWS = new Map();
/** Columns in which something was measured. @type {Set<string>} */
let measuredIn = new Set();

/** Compute what is derived from the board. */
function readBoard() {
  BOARD = part("board");
  COLUMNS = new Map(BOARD.columns.map((c) => [c.id, c]));
  ROWS = new Map();
  for (const row of BOARD.rows) {
    row.cost.forgetting = row.forgetting;
    ROWS.set(row.id, Object.assign(row, { quoted: /** @type {const} */ (false) }));
  }
  for (const row of BOARD.quoted) {
    for (const cell of Object.values(row.cells)) Object.assign(cell, { mean: cell.value, low: null, high: null, std: null });
    const named = { quoted: /** @type {const} */ (true), backbone: row.name, delta: row.setting, control: "", settings: {}, cost: null };
    ROWS.set(row.id, Object.assign(row, named, { coverage: Object.keys(row.cells).length }));
  }
  measuredIn = new Set(BOARD.rows.flatMap((row) => Object.keys(row.cells)));
  findMains();
}

/**
 * Show other data. Parts that are not given stay as they are.
 * @param {Partial<Parts>} parts
 */
function update(parts) {
  Object.assign(LOADED, parts);
  readBoard();
  renderPage();
}
