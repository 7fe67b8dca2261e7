// Elements and numbers. Everything is set as text, never as markup.
const SVG = "http://www.w3.org/2000/svg";
/** The element with this id, which is there. @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

/** @typedef {Record<string, string | number | boolean | null | undefined | ((event: any) => void)>} Attributes */
/** @typedef {Node | string | null | false | undefined} Child */
/** @template {Element} T @param {T} node @param {Attributes} attributes @param {Child[]} children @returns {T} */
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, String(value));
  }
  for (const child of children) if (child !== null && child !== undefined && child !== false) node.append(child);
  return node;
}
/** An HTML element; an attribute `onNAME` is a listener, one that is null or false is left out. @template {keyof HTMLElementTagNameMap} Name @param {Name} name @param {Attributes} attributes @param {...Child} children @returns {HTMLElementTagNameMap[Name]} */
function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}
/** An SVG element. @param {string} name @param {Attributes} attributes @param {...Child} children @returns {any} */
function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}
/** @param {string | null} colour */
function swatch(colour) {
  const node = el("span", { class: "swatch", "aria-hidden": "true" });
  node.style.background = colour ?? "";
  return node;
}
/** Fill a select: pairs of value and text. @param {HTMLSelectElement} select @param {[string, string][]} pairs @param {string} value */
function options(select, pairs, value) {
  select.replaceChildren(...pairs.map(([key, text]) => el("option", { value: key }, text)));
  select.value = pairs.some(([key]) => key === value) ? value : pairs[0] ? pairs[0][0] : "";
}
/** Save a text as a file of the reader's. @param {string} name @param {string} type @param {string} text */
function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
/** CSV of lines of cells; a text that a spreadsheet would take for a formula, and that is no number, starts with an apostrophe. @param {(string | number | null)[][]} lines */
function csv(lines) {
  /** @param {string | number | null} cell */
  const quoted = (cell) => {
    let text = cell === null ? "" : String(cell);
    if (typeof cell === "string" && /^[=+\-@\t\r＝＋－＠]/.test(text) && !/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text)) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return `${lines.map((line) => line.map(quoted).join(",")).join("\r\n")}\r\n`;
}

/** @param {number | null | undefined} value */
function score(value) {
  if (value === null || value === undefined) return "";
  return value.toFixed(Math.abs(value) >= 999.5 ? 0 : 2);
}
/** @param {number} value */
function short(value) {
  for (const [unit, size] of /** @type {[string, number][]} */ ([["B", 1e9], ["M", 1e6], ["k", 1e3]])) {
    if (value >= size) return Number((value / size).toPrecision(3)) + unit;
  }
  return String(Math.round(value * 100) / 100);
}
/** @param {number} value */
function bytes(value) {
  for (const [unit, size] of /** @type {[string, number][]} */ ([["GB", 1e9], ["MB", 1e6], ["kB", 1e3]])) {
    if (value >= size) return `${(value / size).toFixed(1)} ${unit}`;
  }
  return `${value} B`;
}
/** @param {number} seconds */
function duration(seconds) {
  if (seconds >= 3600) return t("nHours", (seconds / 3600).toFixed(1));
  return seconds >= 60 ? t("nMinutes", (seconds / 60).toFixed(1)) : t("nSeconds", seconds.toFixed(0));
}

/** What a row costs: its value, its deviation over seeds, how both are shown, its unit in files, and whether more is better. @type {Record<string, {of: (cost: Cost) => number | null, std?: (cost: Cost) => number | null | undefined, show: (value: number) => string, unit?: string, more?: boolean}>} */
const COSTS = {
  trained: { of: (c) => c.n_trainable, show: short },
  bytes: { of: (c) => c.bytes, show: bytes, unit: "bytes" },
  speed: { of: (c) => c.samples_per_second, std: (c) => c.samples_per_second_std, show: (v) => v.toFixed(1), more: true },
  seconds: { of: (c) => c.seconds, std: (c) => c.seconds_std, show: duration, unit: "s" },
  memory: { of: (c) => c.peak_memory_bytes, show: (v) => `${(v / 2 ** 30).toFixed(1)} GiB`, unit: "bytes" },
  energy: { of: (c) => c.energy_joules ?? null, show: (v) => `${(v / 3600).toFixed(2)} Wh`, unit: "J" },
  forgetting: { of: (c) => c.forgetting ?? null, show: (v) => v.toFixed(3) },
};
/** A cost in words, with its deviation if that is known; "" if the cost is not. @param {string} name @param {Cost} cost */
function costText(name, cost) {
  const { of, std, show } = COSTS[name];
  const [value, deviation] = [of(cost), std && std(cost)];
  if (!known(value)) return "";
  return show(value) + (known(deviation) ? ` ± ${show(deviation)}` : "");
}

/** The mean parallel efficiency for each number of processes. @param {Cost[]} costs */
function scalingText(costs) {
  /** @type {Map<number, number[]>} */
  const sizes = new Map();
  for (const cost of costs) for (const one of cost.scaling || []) {
    if (one.world_size > 1 && one.efficiency !== null) sizes.set(one.world_size, [...(sizes.get(one.world_size) ?? []), one.efficiency]);
  }
  return [...sizes].map(([n, e]) => t("scalingOf", n, (e.reduce((a, b) => a + b) / e.length).toFixed(2))).join("; ");
}

/** A plain table with a caption. `columns` are [heading, numeric]. @param {Child} caption @param {[string, boolean][]} columns @param {Child[][]} rows */
function plainTable(caption, columns, rows) {
  /** @param {Child[]} cells @param {"th" | "td"} name */
  const line = (cells, name) => el("tr", {}, ...cells.map((cell, i) => {
    const first = name === "td" && i === 0;
    const scope = name === "th" ? "col" : first ? "row" : null;
    return el(first ? "th" : name, { class: columns[i][1] ? "n" : "", scope }, cell);
  }));
  return el("table", {}, el("caption", {}, caption),
    el("thead", {}, line(columns.map((c) => c[0]), "th")),
    el("tbody", {}, ...rows.map((row) => line(row, "td"))));
}
