// The keys of the keyboard: / searches, ? lists them, g and a letter goes to a page, Esc closes what is open.
"use strict";
(function () {
  const places = { o: "/", k: "/keys", h: "/hosts", p: "/people", a: "/access", r: "/requests", c: "/repositories", l: "/activity", s: "/settings" };
  let going = 0;
  function isTyping(target) {
    return target instanceof Element && target.closest("input, textarea, select, [contenteditable]") !== null;
  }
  function help() {
    const dialog = document.getElementById("help");
    if (dialog && !dialog.open) dialog.showModal();
  }
  document.addEventListener("keydown", function (event) {
    if (event.key === "Escape") {
      for (const menu of document.querySelectorAll("details.menu[open], details.more[open]")) {
        menu.open = false;
        menu.querySelector("summary").focus();
      }
      if (event.target instanceof Element && event.target.id === "search") event.target.blur();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    if (going && Date.now() - going < 1500) {
      going = 0;
      const address = places[event.key];
      const link = address && document.querySelector('nav.rail a[href="' + address + '"]');
      if (link) {
        event.preventDefault();
        location.assign(address);
      }
      return;
    }
    if (event.key === "/") {
      const search = document.getElementById("search");
      if (search) {
        event.preventDefault();
        search.focus();
        search.select();
      }
    } else if (event.key === "?") {
      event.preventDefault();
      help();
    } else if (event.key === "g") {
      going = Date.now();
    }
  });
  document.addEventListener("click", function (event) {
    if (!(event.target instanceof Element)) return;
    if (event.target.closest("[data-help]")) help();
    for (const menu of document.querySelectorAll("details.menu[open], details.more[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });
})();
