// The colours that somebody chose on this browser, before anything is drawn; the system's where nobody did.
"use strict";
(function () {
  const root = document.documentElement;
  function read() {
    try {
      return localStorage.getItem("keyrack-theme") || "";
    } catch {
      return "";
    }
  }
  function apply(choice) {
    if (choice === "light" || choice === "dark") root.dataset.theme = choice;
    else delete root.dataset.theme;
    for (const button of document.querySelectorAll("[data-theme-choice]")) {
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === choice));
    }
  }
  apply(read());
  document.addEventListener("DOMContentLoaded", function () {
    apply(read());
  });
  document.addEventListener("click", function (event) {
    const button = event.target instanceof Element ? event.target.closest("[data-theme-choice]") : null;
    if (!button) return;
    try {
      localStorage.setItem("keyrack-theme", button.dataset.themeChoice);
    } catch {
      // A browser that keeps nothing has the choice until the page is left.
    }
    apply(button.dataset.themeChoice);
  });
})();
