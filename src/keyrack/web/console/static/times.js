// Times in words that stay true, with the exact one in the person's zone; the server's words stand until this has run.
"use strict";
(function () {
  const words = new Intl.RelativeTimeFormat("en", { numeric: "always" });
  const exact = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
  const steps = [
    [60, "second"],
    [60, "minute"],
    [24, "hour"],
    [30, "day"],
    [12, "month"],
    [Infinity, "year"],
  ];
  function ago(seconds) {
    let number = seconds;
    if (Math.abs(number) < 5) return "just now";
    for (const [size, unit] of steps) {
      if (Math.abs(number) < size) return words.format(Math.trunc(number), unit);
      number /= size;
    }
    return "";
  }
  function refresh() {
    for (const element of document.querySelectorAll("time[data-ago], time[data-exact]")) {
      const at = new Date(element.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      const full = exact.format(at);
      element.title = full + " (" + Intl.DateTimeFormat().resolvedOptions().timeZone + ")";
      const text = "exact" in element.dataset ? full : ago((at.getTime() - Date.now()) / 1000);
      if (element.textContent !== text) element.textContent = text;
    }
  }
  refresh();
  setInterval(refresh, 15000);
  document.addEventListener("htmx:load", refresh);
})();
