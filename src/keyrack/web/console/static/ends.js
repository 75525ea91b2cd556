// A form's end: shows the day and time where that is chosen, and says in which zone it is read: the browser's own.
"use strict";
(function () {
  const ends = document.getElementById("field-ends");
  const until = document.getElementById("until");
  if (!ends || !until) return;
  const zone = until.querySelector('input[name="zone"]');
  const named = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (named && zone.value === "") {
    zone.value = named;
    until.querySelector("[data-zone]").textContent = named;
  }
  function show() {
    until.hidden = ends.value !== "date";
  }
  ends.addEventListener("change", show);
  show();
})();
