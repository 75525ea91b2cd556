// Parts that move by themselves: say so, and say it when they no longer do. A part that did not change is left alone.
"use strict";
(function () {
  function say(words) {
    for (const place of document.querySelectorAll("[data-live-words]")) {
      if (place.textContent !== words) place.textContent = words;
    }
  }
  function isLive(event) {
    return event.target instanceof Element && event.target.closest("[data-live]") !== null;
  }
  document.addEventListener("htmx:beforeSwap", function (event) {
    if (!isLive(event)) return;
    if (event.detail.xhr.status !== 200) {
      event.detail.shouldSwap = false;
      say("No longer live: Keyrack does not answer. What stands here may be old.");
      return;
    }
    say("Live.");
    if (event.target.dataset.had === event.detail.serverResponse) event.detail.shouldSwap = false;
    event.target.dataset.had = event.detail.serverResponse;
  });
  document.addEventListener("htmx:sendError", function (event) {
    if (isLive(event)) say("No longer live: Keyrack cannot be reached. What stands here may be old.");
  });
})();
