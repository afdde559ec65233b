// Dark and light: the system's choice unless the reader makes another, which is remembered where that is allowed.
(() => {
  "use strict";
  const key = "inferometer-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const remember = (theme) => {
    try {
      if (theme) localStorage.setItem(key, theme);
      else localStorage.removeItem(key);
    } catch { /* a browser that keeps nothing: the choice holds for this visit */ }
  };
  const remembered = () => {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  };
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const say = () => button.setAttribute("aria-pressed", dark());

  const theme = remembered();
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  const button = toolButton("Dark", () => {
    const wanted = dark() ? "light" : "dark";
    const own = (wanted === "dark") !== system.matches;
    if (own) root.dataset.theme = wanted;
    else delete root.dataset.theme;
    remember(own ? wanted : null);
    say();
  });
  system.addEventListener("change", say);
  say();
  document.querySelector(".side").append(button);
})();
