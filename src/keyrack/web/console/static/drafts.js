// What somebody wrote in a form outlives a session that ended, a network that went away and a service that did not
// answer, and a page that was left or loaded anew: it is kept in this tab until a page answers, never with passwords,
// and never sent again by itself.
"use strict";
(function () {
  const name = "keyrack-draft";
  const from = "keyrack-from";
  const most = 65536;
  const secret = /PRIVATE KEY|PuTTY-User-Key-File/;
  const body = document.body;

  function read() {
    try {
      return JSON.parse(sessionStorage.getItem(name)) || null;
    } catch {
      return null;
    }
  }
  function write(draft) {
    try {
      const text = JSON.stringify(draft);
      if (draft && text.length <= most) sessionStorage.setItem(name, text);
      else sessionStorage.removeItem(name);
    } catch {
      // A browser that keeps nothing loses what was written.
    }
  }
  // The page that a form was sent from, which has an address of its own.
  function note(page) {
    try {
      sessionStorage.setItem(from, page);
    } catch {
      // Then a page that answers a form stays under the form's address.
    }
  }
  function noted() {
    try {
      return sessionStorage.getItem(from);
    } catch {
      return null;
    }
  }
  function isTicked(field) {
    return field.type === "checkbox" || field.type === "radio";
  }
  function isWritten(field) {
    if (!field.name || field.autocomplete === "one-time-code" || secret.test(field.value)) return false;
    return field.matches("textarea, select, input:not([type=hidden], [type=password], [type=file])");
  }
  // What a form showed when it was made comes back with what was written over it: somebody may have changed that since.
  function isKept(field) {
    return isWritten(field) || (field.type === "hidden" && field.name === "seen");
  }
  function written(form) {
    const fields = [...form.elements].filter(isKept);
    if (!fields.some(isWritten)) return [];
    return fields.map((field) => [field.name, field.value, isTicked(field) ? field.checked : null]);
  }

  function isAnswer() {
    return "answers" in body.dataset || "refused" in body.dataset;
  }

  // The form that somebody wrote in and did not send: what is in it is there again after loading anew or going back.
  let open = null;
  document.addEventListener("input", function (event) {
    const form = event.target.form;
    if (event.isTrusted && form && form.method === "post" && !("noDraft" in form.dataset)) open = form;
  });
  window.addEventListener("pagehide", function () {
    if (!open || !body.dataset.actor) return;
    const fields = written(open);
    const page = location.pathname + location.search;
    const action = open.getAttribute("action");
    if (fields.length) write({ actor: body.dataset.actor, page: page, action: action, fields: fields, left: true });
  });

  document.addEventListener("submit", function (event) {
    const form = event.target;
    if (form.method !== "post" || event.defaultPrevented) return;
    open = null;
    if (!isAnswer()) note(location.pathname + location.search);
    if ("noDraft" in form.dataset) return;
    const action = form.getAttribute("action");
    if (action === "/logout") write(null);
    const fields = written(form);
    const before = read();
    // What a look at it has shown is done now: it is not written over what comes of it.
    if (before && before.action === action && fields.length === 0) write({ ...before, unanswered: false });
    if (!body.dataset.actor || fields.length === 0) return;
    // A page that answers a form is not there under its own address: the form's page is the one before.
    const again = isAnswer() && before !== null && before.action === action;
    const page = again ? before.page : location.pathname + location.search;
    write({ actor: body.dataset.actor, page: page, action: action, fields: fields, unanswered: false });
  });

  function fill(form, fields) {
    for (const [field, value, ticked] of fields) {
      const places = [...form.elements].filter((one) => one.name === field && isKept(one));
      const place = ticked === null ? places[0] : places.find((one) => one.value === value);
      if (!place) continue;
      if (ticked === null) place.value = value;
      else place.checked = ticked;
      for (const kind of ["input", "change"]) place.dispatchEvent(new Event(kind, { bubbles: true }));
    }
    const folded = form.closest("details");
    if (folded) folded.open = true;
  }
  function say(words) {
    const line = document.createElement("p");
    line.className = "notice";
    line.textContent = words;
    document.getElementById("messages").append(line);
  }
  // The page that says that a form was not taken leads back to it.
  function offer(draft, place) {
    place.hidden = false;
    const way = document.querySelector("[data-draft-way]");
    // Whoever may not go back now may do so later.
    if (!way) write({ ...draft, unanswered: true, left: true });
    if (!way) return;
    way.hidden = false;
    way.href = way.getAttribute("href") === "/login" ? "/login?next=" + encodeURIComponent(draft.page) : draft.page;
  }
  // A page that answers a form has no address of its own: loaded again, or come back to, it is the form's page, so that
  // nothing is sent a second time. A look at what a form would do leads back to it as it was.
  function stand(draft, kind) {
    const address = kind === "done" ? body.dataset.here : (draft && draft.page) || noted();
    if (address) history.replaceState(null, "", address);
    if (kind === "done") write(null);
    else if (draft && kind === "preview") write({ ...draft, unanswered: true });
  }
  function arrive() {
    const draft = read();
    if ("answers" in body.dataset) stand(draft, body.dataset.answers);
    if ("refused" in body.dataset && noted()) history.replaceState(null, "", noted());
    if (draft === null || "answers" in body.dataset) return;
    const place = document.querySelector("[data-draft]");
    if (place || body.classList.contains("alone")) {
      write({ ...draft, unanswered: true });
      if (place) offer(draft, place);
      return;
    }
    if (document.querySelector("form[data-no-draft]")) return;
    const [came] = performance.getEntriesByType("navigation");
    const isLost = draft.unanswered || (came !== undefined && came.type !== "navigate");
    const isHere = draft.actor === body.dataset.actor && draft.page === location.pathname + location.search;
    const form = [...document.forms].find((one) => one.getAttribute("action") === draft.action);
    // Whoever left it may come back to it.
    if (!isHere && draft.left && draft.actor === body.dataset.actor) return;
    write(null);
    if (!isLost || !isHere || !form) return;
    fill(form, draft.fields);
    if (draft.left) open = form;
    say("What you wrote is back in its form." + (draft.left ? "" : " Look at it before you send it once more."));
  }
  // Once the other scripts listen to what fields are told.
  window.addEventListener("DOMContentLoaded", arrive);
})();
