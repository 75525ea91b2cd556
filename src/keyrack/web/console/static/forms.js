// Forms: a file that is chosen or dropped fills its field, and the first field that is wrong has the keyboard.
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
})();
