// Wires the controls, and sets the page's words and colours.
const FILTERS = { "f-capability": "capability", "f-dataset": "dataset", "f-backbone": "backbone", "f-delta": "delta", "f-base": "base" };

function distinct(values) {
  return [...new Set(values)];
}
function renderControls() {
  const any = [["", t("all")]];
  options($("f-capability"), [...any, ...distinct(BOARD.columns.map((c) => c.capability)).map((c) => [c, capabilityName(c)])], state.capability);
  const inCapability = BOARD.columns.filter((c) => !state.capability || c.capability === state.capability);
  options($("f-dataset"), [...any, ...distinct(inCapability.map((c) => c.task)).map((c) => [c, c])], state.dataset);
  state.dataset = $("f-dataset").value;
  options($("f-backbone"), [...any, ...distinct(BOARD.rows.map((r) => r.backbone)).sort().map((v) => [v, v])], state.backbone);
  options($("f-delta"), [...any, ...distinct(BOARD.rows.map((r) => r.delta)).sort().map((v) => [v, v])], state.delta);
  options($("f-base"), [["", t("raw")], ...[...ROWS.values()].map((r) => [r.id, t("relative", rowName(r))])], state.base);
  $("show-intervals").checked = state.intervals;
  $("show-cost").checked = state.cost;
  $("show-quoted").checked = state.quoted;
  $("f-search").value = state.search;
  renderAxes();
}
function renderAxes() {
  const columns = visibleColumns().filter((c) => measuredIn.has(c.id));
  const pairs = columns.map((c) => [c.id, `${c.id}, ${c.metric}`]);
  options($("s-x"), Object.keys(COSTS).map((k) => [k, t(k)]), $("s-x").value || "trained");
  options($("s-y"), [["mean", t("mean")], ...pairs], $("s-y").value || "mean");
  options($("c-column"), pairs, $("c-column").value);
  options($("c-what"), [["dev", t("dev")], ["loss", t("loss")]], $("c-what").value || "dev");
}
function renderWords() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = t("title");
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of document.querySelectorAll("[data-t-label]")) node.setAttribute("aria-label", t(node.dataset.tLabel));
  $("lang-en").setAttribute("aria-pressed", String(language === "en"));
  $("lang-zh").setAttribute("aria-pressed", String(language === "zh"));
  $("summary").textContent = t("summary", BOARD.n_runs, BOARD.rows.length, BOARD.columns.length);
  $("quoted-tick").hidden = !BOARD.quoted.length;
}
function renderAbout() {
  $("rules").replaceChildren(...Object.entries(BOARD.indices).flatMap(([name, rule]) => {
    const [title, said] = (language === "zh" && RULES_ZH[name]) || [rule.title, rule.rule];
    return [el("dt", {}, `${title} (${name})`), el("dd", {}, `${said} ${t("baseline", rule.baseline)}`)];
  }));
  $("columns").replaceChildren(plainTable(t("columns"),
    [[t("column"), false], [t("capability"), false], [t("metric"), false], [t("template"), false], [t("scoring"), false], [t("rows"), true], [t("notes"), false], [t("apart"), false]],
    BOARD.columns.map((c) => [c.id, capabilityName(c.capability), c.signature, c.template ? `${c.template} v${c.template_version}` : "", [c.scoring, ...c.protocol].filter(Boolean).join(", "), c.n ? String(c.n) : "", c.notes.join("; "), c.apart.join("; ")])));
  const list = (title, lines) => (lines.length ? [el("h3", {}, title), el("ul", {}, ...lines.map((line) => el("li", {}, line)))] : []);
  $("sources").replaceChildren(...list(t("sources"), Object.values(BOARD.sources)));
  $("left-out").replaceChildren(...list(t("leftOut"), BOARD.left_out));
}
function renderAll() {
  renderWords();
  renderControls();
  renderTable();
  renderFigures();
  renderAbout();
}
function setLanguage(to) {
  language = to;
  renderAll();
}
function setTheme(to) {
  if (to === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = to;
  for (const button of document.querySelectorAll("[data-theme-is]")) button.setAttribute("aria-pressed", String(button.dataset.themeIs === to));
}
function changed() {
  renderAxes();
  renderTable();
  renderFigures();
}

for (const [id, key] of Object.entries(FILTERS)) {
  $(id).addEventListener("change", () => {
    state[key] = $(id).value;
    if (key === "capability") renderControls();
    changed();
  });
}
$("f-search").addEventListener("input", () => { state.search = $("f-search").value; changed(); });
for (const key of ["intervals", "cost", "quoted"]) {
  $(`show-${key}`).addEventListener("change", () => { state[key] = $(`show-${key}`).checked; changed(); });
}
for (const id of ["s-x", "s-y"]) $(id).addEventListener("change", renderScatter);
for (const id of ["c-column", "c-what"]) $(id).addEventListener("change", renderCurves);
$("reset").addEventListener("click", () => { Object.assign(state, START, { sort: null, down: true }); renderControls(); changed(); });
$("lang-en").addEventListener("click", () => setLanguage("en"));
$("lang-zh").addEventListener("click", () => setLanguage("zh"));
for (const button of document.querySelectorAll("[data-theme-is]")) button.addEventListener("click", () => setTheme(button.dataset.themeIs));
$("cell-close").addEventListener("click", () => $("cell").close());
$("cell").addEventListener("click", (event) => { if (event.target === $("cell")) $("cell").close(); });

let resizing = 0;
window.addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(renderFigures, 120);
});

state.chosen = BOARD.rows.slice(0, 4).map((row) => row.id);
$("figures").tabIndex = -1;
setTheme("auto");
setLanguage((navigator.language || "").toLowerCase().startsWith("zh") ? "zh" : "en");
document.documentElement.dataset.ready = "yes";
