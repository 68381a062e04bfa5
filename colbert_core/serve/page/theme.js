// Light or dark: what the system says, or what the reader chose. Runs before the page is drawn, so that nothing flashes.
"use strict";
(() => {
  const root = document.documentElement;
  const chosen = () => {
    try {
      return localStorage.getItem("colbert-theme");
    } catch {
      return null; // storage is switched off; the choice lasts as long as the page
    }
  };
  const show = (theme) => {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  };
  const current = () => root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

  show(chosen());
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => {
      const other = current() === "dark" ? "light" : "dark";
      button.title = `Switch to ${other} colours`;
      button.setAttribute("aria-label", button.title);
    };
    button.addEventListener("click", () => {
      show(current() === "dark" ? "light" : "dark");
      label();
      try {
        localStorage.setItem("colbert-theme", root.dataset.theme);
      } catch {
        // see above
      }
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
    label();
  });
})();
