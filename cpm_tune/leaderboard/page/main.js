// The frame of the page: menu, language, colours; then the first view.
function renderPage() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-t]"))) node.textContent = t(node.dataset.t ?? "");
  for (const node of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-t-label]"))) node.setAttribute("aria-label", t(node.dataset.tLabel ?? ""));
  $("lang-en").setAttribute("aria-pressed", String(language === "en"));
  $("lang-zh").setAttribute("aria-pressed", String(language === "zh"));
  renderView();
}
/** @param {"en" | "zh"} to */
function setLanguage(to) {
  language = to;
  renderPage();
}
/** The reader's choice of another visit; a browser may forbid to keep it. @param {string} name */
function keptChoice(name) {
  try {
    return localStorage.getItem(`cpm-tune ${name}`);
  } catch {
    return null;
  }
}
/** @param {string} name @param {string} choice */
function keepChoice(name, choice) {
  try {
    localStorage.setItem(`cpm-tune ${name}`, choice);
  } catch { /* it holds for this visit */ }
}
/** @param {string} to */
function setTheme(to) {
  if (to === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = to;
  for (const button of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-theme-is]"))) {
    button.setAttribute("aria-pressed", String(button.dataset.themeIs === to));
  }
}

for (const one of VIEWS.values()) $("views").append(el("section", { id: `view-${one.name}`, class: "view", hidden: "" }));
for (const to of /** @type {const} */ (["en", "zh"])) $(`lang-${to}`).addEventListener("click", () => { keepChoice("language", to); setLanguage(to); });
for (const button of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-theme-is]"))) {
  const to = button.dataset.themeIs ?? "auto";
  button.addEventListener("click", () => { keepChoice("theme", to); setTheme(to); });
}
window.addEventListener("hashchange", opened);
window.cpmTune = { update, give };
const theme = keptChoice("theme") ?? "";
setTheme(["light", "dark"].includes(theme) ? theme : "auto");
readBoard();
setLanguage((keptChoice("language") ?? navigator.language ?? "").toLowerCase().startsWith("zh") ? "zh" : "en");
document.documentElement.dataset.ready = "yes";
performance.mark("ready");
