// The search as one types: what it found stands below it, the arrows choose, Enter goes there, Esc closes it.
"use strict";
(function () {
  const field = document.getElementById("search");
  const list = document.getElementById("found");
  if (!field || !list) return;

  function options() {
    return [...list.querySelectorAll('[role="option"]')];
  }
  function chosen() {
    return options().find((one) => one.getAttribute("aria-selected") === "true");
  }
  function choose(option) {
    for (const one of options()) one.setAttribute("aria-selected", String(one === option));
    if (option) {
      field.setAttribute("aria-activedescendant", option.id);
      option.scrollIntoView({ block: "nearest" });
    } else {
      field.removeAttribute("aria-activedescendant");
    }
  }
  function show(open) {
    list.hidden = !open;
    field.setAttribute("aria-expanded", String(open));
    if (!open) choose(null);
  }

  list.addEventListener("htmx:afterSwap", function () {
    show(document.activeElement === field && options().length > 0);
    choose(null);
  });
  field.addEventListener("keydown", function (event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") show(false);
    if (event.key === "Enter" && !list.hidden && chosen()) {
      event.preventDefault();
      location.assign(chosen().href);
    }
    if (!step || options().length === 0) return;
    event.preventDefault();
    const all = options();
    const at = all.indexOf(chosen());
    show(true);
    choose(all[at < 0 ? (step > 0 ? 0 : all.length - 1) : (at + step + all.length) % all.length]);
  });
  field.closest("form").addEventListener("focusout", function (event) {
    if (!event.currentTarget.contains(event.relatedTarget)) show(false);
  });
  // A press on what was found does not take the field's focus before the click is heard.
  list.addEventListener("pointerdown", function (event) {
    event.preventDefault();
  });
  document.addEventListener("keydown", function (event) {
    if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "k") {
      event.preventDefault();
      field.focus();
      field.select();
    }
  });
})();
