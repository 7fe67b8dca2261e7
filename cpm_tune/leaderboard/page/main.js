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
/** @param {string} to */
function setTheme(to) {
  if (to === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = to;
  for (const button of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-theme-is]"))) {
    button.setAttribute("aria-pressed", String(button.dataset.themeIs === to));
  }
}

for (const one of VIEWS.values()) $("views").append(el("section", { id: `view-${one.name}`, class: "view", hidden: "" }));
$("lang-en").addEventListener("click", () => setLanguage("en"));
$("lang-zh").addEventListener("click", () => setLanguage("zh"));
for (const button of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-theme-is]"))) {
  button.addEventListener("click", () => setTheme(button.dataset.themeIs ?? "auto"));
}
window.addEventListener("hashchange", opened);
window.cpmTune = { update, give };
setTheme("auto");
readBoard();
setLanguage((navigator.language || "").toLowerCase().startsWith("zh") ? "zh" : "en");
document.documentElement.dataset.ready = "yes";
performance.mark("ready");
