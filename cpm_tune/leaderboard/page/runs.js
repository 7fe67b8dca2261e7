// A run's own part of the data: record, how it is made again, errors, examples. The page embeds the
// parts of the first rows; others, or all of them, are scripts in a folder next to the page, since a page
// opened from a disk may not fetch. Such a script only calls cpmTune.give.
/** @type {Map<string, (value: any) => void>} */
const AWAITED = new Map();

/**
 * A lazy part by name; null if the page does not have it.
 * @template T
 * @param {string} name
 * @returns {Promise<T | null>}
 */
function lazy(name) {
  const known = /** @type {Record<string, any>} */ (LOADED);
  if (known[name] === undefined) known[name] = allRead().then(() => embeddedPart(name) ?? loadPart(name));
  return known[name];
}
/** The page's own lazy parts come after its script. */
function allRead() {
  return new Promise((resolve) => {
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", resolve, { once: true });
    else resolve(null);
  });
}
/** @param {string} name */
function embeddedPart(name) {
  const text = document.getElementById(`data-${name}`)?.textContent;
  return text ? JSON.parse(text) : null;
}
/** @param {string} name @returns {Promise<any>} */
function loadPart(name) {
  const folder = part("runs").folder;
  if (!folder) return Promise.resolve(null);
  return new Promise((resolve) => {
    const script = document.createElement("script");
    AWAITED.set(name, resolve);
    script.addEventListener("error", () => resolve(null));
    script.addEventListener("load", () => { resolve(null); script.remove(); });
    script.src = `${folder}/${name}.js`;
    document.head.append(script);
  });
}
/** What a script next to the page calls. @param {string} name @param {any} value */
function give(name, value) {
  AWAITED.get(name)?.(value);
  AWAITED.delete(name);
}

/** @param {string} run @returns {Promise<RunPart | null>} */
function runPart(run) {
  const name = part("runs").of[run];
  return name ? lazy(name) : Promise.resolve(null);
}
/** A run with the set of its rows. @param {string} run @returns {Promise<WholeRun | null>} */
async function wholeRun(run) {
  const whole = await runPart(run);
  if (!whole) return null;
  /** @type {ExampleSet | null} */
  const set = whole.set === null ? null : await lazy(whole.set);
  const record = whole.record ? JSON.parse(whole.record) : null;
  return { ...whole, run, parsed: record, rows: set };
}

/** The runs of a row in a column, one per seed. @param {Row} row @param {string} column @returns {SeedRun[]} */
function seedsOf(row, column) {
  return part("details").rows[row.id]?.[column]?.runs ?? [];
}

/**
 * Fill a place once the data is there, unless another view was opened meanwhile.
 * @template T
 * @param {HTMLElement} place @param {Promise<T>} data @param {(data: T) => (Node | string | null)[]} draw
 */
function whenThere(place, data, draw) {
  place.setAttribute("aria-busy", "true");
  place.replaceChildren(el("p", { class: "quiet" }, t("loading")));
  data.then((value) => {
    if (!place.isConnected) return;
    place.replaceChildren(...draw(value).filter((node) => node !== null));
    place.removeAttribute("aria-busy");
  }, (error) => {
    place.replaceChildren(el("p", { class: "quiet" }, t("notLoaded", String(error))));
    place.removeAttribute("aria-busy");
  });
}

/** A button that offers a file. @param {string} words @param {string} name @param {() => string} text @param {string} type */
function saver(words, name, text, type) {
  return el("button", { type: "button", class: "save", onclick: () => download(name, type, text()) }, words);
}
/** A button that copies a text. @param {() => string} text @param {string} [words] */
function copier(text, words = "copy") {
  const button = el("button", { type: "button", class: "save" }, t(words));
  button.addEventListener("click", () => {
    const done = () => { button.textContent = t("copied"); setTimeout(() => { button.textContent = t(words); }, 2000); };
    navigator.clipboard?.writeText(text()).then(done, () => {});
  });
  return button;
}
/** A name for a file. @param {string} stem @param {string} ending */
function fileName(stem, ending) {
  return `${stem.replace(/[^\p{L}\p{N}._-]+/gu, "-").slice(0, 120)}.${ending}`;
}
