// Parts that follow what moves: a stream says when, the page asks for them anew, and says when it no longer is live.
"use strict";
(function () {
  const place = document.querySelector("[data-live-words]");
  if (!place) return;
  const address = place.dataset.liveStream;
  const lost = "No longer live: Keyrack cannot be reached. What stands here may be old.";
  const away = "No longer live: Keyrack does not reach its database. What stands here may be old.";
  const gone = "No longer live: what this page shows is not there any more.";
  const over = "No longer live: your session has ended, or what you may do has changed. Open the page again.";
  const beat = 25000;
  let stream = null;
  let looking = 0;
  let heard = Date.now();
  let ended = false;

  function say(words) {
    if (place.textContent !== words) place.textContent = words;
    place.classList.toggle("bad", words !== "Live.");
  }
  function look() {
    for (const part of document.querySelectorAll("[data-live]")) htmx.trigger(part, "live");
  }
  // Where no stream can be had, the page looks by itself every few seconds.
  function lookEvery(seconds) {
    clearInterval(looking);
    looking = setInterval(look, seconds * 1000);
  }
  function close() {
    if (stream) stream.close();
    stream = null;
    clearInterval(looking);
  }
  function open() {
    if (ended) return;
    close();
    lookEvery(30);
    heard = Date.now();
    stream = new EventSource(address);
    stream.addEventListener("open", function () {
      heard = Date.now();
      lookEvery(30);
      say("Live.");
    });
    stream.addEventListener("beat", function () {
      heard = Date.now();
    });
    stream.addEventListener("changed", function () {
      heard = Date.now();
      say("Live.");
      look();
    });
    stream.addEventListener("away", function () {
      heard = Date.now();
      say(away);
    });
    stream.addEventListener("over", function () {
      close();
      // A service that stops says so too: whoever is signed in still finds out by asking.
      lookEvery(4);
    });
    // Whether the stream alone is gone, or Keyrack is, shows where the page looks by itself.
    stream.addEventListener("error", function () {
      lookEvery(4);
      look();
    });
  }
  setInterval(function () {
    if (stream && stream.readyState === EventSource.OPEN && Date.now() - heard > beat) {
      say(lost);
      open();
    }
  }, 5000);
  window.addEventListener("offline", function () {
    close();
    lookEvery(4);
    say(lost);
  });
  window.addEventListener("online", open);
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", function (event) {
    if (event.persisted) open();
  });
  document.addEventListener("visibilitychange", function () {
    if (document.hidden) close();
    else open();
  });

  function isLive(event) {
    return event.target instanceof Element && event.target.closest("[data-live]") !== null;
  }
  document.addEventListener("htmx:configRequest", function (event) {
    if (isLive(event)) event.detail.headers["X-Keyrack-Live"] = "yes";
  });
  document.addEventListener("htmx:beforeSwap", function (event) {
    if (!isLive(event)) return;
    if (event.detail.xhr.status !== 200) {
      event.detail.shouldSwap = false;
      if (event.detail.xhr.status === 401) {
        ended = true;
        close();
        say(over);
      } else {
        const words = { 404: gone, 503: away };
        say(words[event.detail.xhr.status] || lost);
      }
      return;
    }
    say("Live.");
    if (!stream && !document.hidden) open();
    // What somebody is typing there is theirs: it is looked at again later.
    const typing = document.activeElement;
    if (typing instanceof HTMLInputElement && typing.value && event.target.contains(typing)) {
      event.detail.shouldSwap = false;
      return;
    }
    if (event.target.dataset.had === event.detail.serverResponse) event.detail.shouldSwap = false;
    else if (event.target.dataset.had !== undefined) event.target.classList.add("moved");
    event.target.dataset.had = event.detail.serverResponse;
  });
  document.addEventListener("animationend", function (event) {
    event.target.classList.remove("moved");
  });
  document.addEventListener("htmx:sendError", function (event) {
    if (isLive(event)) say(lost);
  });
  if (!document.hidden) open();
})();
