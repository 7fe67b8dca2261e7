// Views and links. A view is one file: it calls `view({name, title, inMenu, render})` and draws all that
// it shows from the data and its route. The address is #/NAME/ABOUT...?SETTINGS, so a link restores a
// view: `href` makes one, `go` follows one, `remember` notes a setting of the open view in the address.
// `render(place, route)` gets an empty element; it is called when the view is opened or its address is
// changed, when the language changes, and by `update`.
/** @type {Map<string, View>} */
const VIEWS = new Map();
const FIRST = "table";

/** @param {View} one */
function view(one) {
  VIEWS.set(one.name, one);
}

/**
 * The link to a view. Settings that are null, "" or false are left out.
 * @param {string} name
 * @param {string[]} about what the view is about, such as a row's id
 * @param {Record<string, string | string[] | number | boolean | null | undefined>} settings
 */
function href(name, about = [], settings = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(settings)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== null && one !== undefined && one !== false && one !== "") query.append(key, String(one));
  }
  const path = [name, ...about].map(encodeURIComponent).join("/");
  return `#/${path}${query.size ? `?${query}` : ""}`;
}

/** @returns {Route} */
function route() {
  const [path, query] = location.hash.startsWith("#/") ? cut(location.hash.slice(2), "?") : ["", ""];
  let parts = [""];
  try {
    parts = path.split("/").map(decodeURIComponent);
  } catch { /* a link that was cut in two: the first view */ }
  const [name, ...about] = parts;
  return { name: VIEWS.has(name) ? name : FIRST, about, query: new URLSearchParams(query) };
}

/** @param {string} text @param {string} mark @returns {[string, string]} */
function cut(text, mark) {
  const at = text.indexOf(mark);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}

/** @type {typeof href extends (...args: infer A) => string ? (...args: A) => void : never} */
function go(...where) {
  location.hash = href(...where);
}

/**
 * Note settings of the open view in its address, without a new entry in the history. Nothing is drawn.
 * @param {Parameters<typeof href>[2]} settings
 */
function remember(settings) {
  const { name, about } = route();
  history.replaceState(null, "", href(name, about, settings));
}

/** Draw the open view. What had the focus has it again if it is drawn with the same id. */
function renderView() {
  const here = route();
  if (here.name !== FIRST && document.readyState === "loading") { // its data is still being read
    document.addEventListener("DOMContentLoaded", renderView, { once: true });
    return;
  }
  const focused = document.activeElement?.id;
  for (const one of VIEWS.values()) {
    const place = $(`view-${one.name}`);
    place.hidden = one.name !== here.name;
    if (place.hidden) place.replaceChildren();
    else {
      document.title = `${t(one.title)} · ${t("title")}`;
      one.render(place, here);
    }
  }
  renderMenu();
  if (focused && document.activeElement?.id !== focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

/** The menu's links take the chosen rows with them. */
function renderMenu() {
  const open = route().name;
  $("menu").replaceChildren(...[...VIEWS.values()].filter((one) => one.inMenu).map((one) =>
    el("a", { id: `menu-${one.name}`, href: href(one.name, [], { rows: chosenIds() }), "aria-current": one.name === open ? "page" : null }, t(one.title))));
}

/** The heading of the view that a link opened, or the part that it names as `at`, gets the focus, for keyboards and screen readers. */
function opened() {
  renderView();
  const at = document.getElementById(route().query.get("at") ?? "");
  const heading = at ?? /** @type {HTMLElement | null} */ (document.querySelector(".view:not([hidden]) h2"));
  if (heading !== null) {
    heading.tabIndex = -1;
    heading.focus();
  }
  if (at === null) scrollTo(0, 0);
  else at.scrollIntoView();
}
