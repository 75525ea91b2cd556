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
    // Whoever writes there, or is about to press something there, is not disturbed: it is looked at again right after.
    if (event.target === pressed || isWritingIn(event.target)) {
      event.detail.shouldSwap = false;
      missed = event.target;
      return;
    }
    if (event.target.dataset.had === event.detail.serverResponse) event.detail.shouldSwap = false;
    else {
      if (event.target.dataset.had !== undefined) event.target.classList.add("moved");
      kept = { id: event.target.id, at: placeOf(event.target, document.activeElement), words: wordsIn(event.target) };
    }
    event.target.dataset.had = event.detail.serverResponse;
  });

  // What is made anew keeps the keyboard where it was, and words that were written and not sent yet.
  let kept = null;
  let pressed = null;
  let missed = null;
  const fields = "input:not([type=hidden]), textarea, select";
  function isWritingIn(part) {
    const at = document.activeElement;
    return at instanceof Element && part.contains(at) && at.matches(fields);
  }
  // What an element is told by among those of its part: what it is for, and which of those alike.
  function nameOf(element) {
    const form = element.closest("form");
    const said = ["name", "href", "formaction", "data-copy", "aria-label"].map((name) => element.getAttribute(name));
    return [element.tagName, form && form.getAttribute("action"), ...said].join(" ");
  }
  function placeOf(part, element) {
    if (!(element instanceof Element) || element === part || !part.contains(element)) return null;
    const name = nameOf(element);
    const alike = [...part.querySelectorAll(element.tagName)].filter((one) => nameOf(one) === name);
    return { tag: element.tagName, name: name, number: alike.indexOf(element) };
  }
  function found(part, place) {
    return [...part.querySelectorAll(place.tag)].filter((one) => nameOf(one) === place.name)[place.number];
  }
  function wordsIn(part) {
    const written = [...part.querySelectorAll("input:not([type=hidden]), textarea")];
    return written.filter((one) => one.value !== one.defaultValue).map((one) => [placeOf(part, one), one.value]);
  }
  document.addEventListener("htmx:afterSwap", function () {
    const part = kept && document.getElementById(kept.id);
    if (!part) return;
    for (const [place, words] of kept.words) {
      const field = found(part, place);
      if (field) field.value = words;
    }
    if (kept.at) {
      const again = found(part, kept.at);
      if (again) again.focus({ preventScroll: true });
      else document.getElementById("main").focus({ preventScroll: true });
    }
    kept = null;
  });
  function lookAgain() {
    const part = missed;
    missed = null;
    if (part && part.isConnected) htmx.trigger(part, "live");
  }
  document.addEventListener("pointerdown", function (event) {
    pressed = event.target instanceof Element ? event.target.closest("[data-live]") : null;
  });
  for (const name of ["pointerup", "pointercancel"]) {
    document.addEventListener(name, function () {
      // Not before the click that follows is heard.
      setTimeout(function () {
        pressed = null;
        lookAgain();
      });
    });
  }
  document.addEventListener("focusout", function (event) {
    if (isLive(event)) setTimeout(lookAgain);
  });
  document.addEventListener("animationend", function (event) {
    event.target.classList.remove("moved");
  });
  document.addEventListener("htmx:sendError", function (event) {
    if (isLive(event)) say(lost);
  });
  if (!document.hidden) open();
})();
