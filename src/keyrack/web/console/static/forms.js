// Forms: a file that is chosen or dropped fills its field, the first field that is wrong has the keyboard, and a form
// is sent once.
"use strict";
(function () {
  const most = 65536;
  async function fill(area, file) {
    if (file && file.size <= most) {
      area.value = await file.text();
      area.dispatchEvent(new Event("input", { bubbles: true }));
    }
  }
  document.addEventListener("change", function (event) {
    const input = event.target;
    if (!(input instanceof HTMLInputElement) || !input.dataset.fills) return;
    const area = document.getElementById(input.dataset.fills);
    if (area && input.files) fill(area, input.files[0]);
  });
  document.addEventListener("dragover", function (event) {
    if (event.target instanceof HTMLTextAreaElement) event.preventDefault();
  });
  document.addEventListener("drop", function (event) {
    const area = event.target;
    if (!(area instanceof HTMLTextAreaElement) || !event.dataTransfer || !event.dataTransfer.files.length) return;
    event.preventDefault();
    fill(area, event.dataTransfer.files[0]);
  });
  const wrong = document.querySelector('[aria-invalid="true"]');
  if (wrong) wrong.focus();

  // A form is sent once, however often it is pressed, until its page is left or took too long.
  const patience = 8000;
  function isFree(form) {
    form.removeAttribute("aria-busy");
  }
  document.addEventListener("submit", function (event) {
    const form = event.target;
    if (form.method !== "post" || event.defaultPrevented) return;
    if (form.getAttribute("aria-busy") === "true") {
      event.preventDefault();
      return;
    }
    form.setAttribute("aria-busy", "true");
    setTimeout(isFree, patience, form);
  });
  window.addEventListener("pageshow", function (event) {
    if (event.persisted) for (const form of document.forms) isFree(form);
  });

  // What a page says of what was done is heard: a live region speaks of what comes into it, not of what it came with.
  const said = document.getElementById("messages");
  if (said && said.firstElementChild) {
    setTimeout(function () {
      said.replaceChildren(...[...said.children].map((one) => one.cloneNode(true)));
    }, 300);
  }

  // Parts that are live say themselves that the network is gone.
  const words = "This browser has no network at the moment. What you wrote stays here; send it once it is back.";
  window.addEventListener("offline", function () {
    const place = document.getElementById("messages");
    if (!place || document.querySelector("[data-live-words]") || document.getElementById("no-network")) return;
    const line = document.createElement("p");
    line.id = "no-network";
    line.className = "notice needs";
    line.textContent = words;
    place.append(line);
  });
  window.addEventListener("online", function () {
    const line = document.getElementById("no-network");
    if (line) line.remove();
  });
})();
