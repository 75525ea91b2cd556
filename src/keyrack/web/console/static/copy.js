// Buttons that copy a text, and say that they did.
"use strict";
document.addEventListener("click", async function (event) {
  const button = event.target instanceof Element ? event.target.closest("[data-copy]") : null;
  if (!button) return;
  let said = "Copied.";
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
  } catch {
    said = "This browser does not let pages copy; mark the text and copy it yourself.";
  }
  button.classList.add("copied");
  setTimeout(function () {
    button.classList.remove("copied");
  }, 1500);
  const place = document.getElementById("messages");
  if (!place) return;
  const line = document.createElement("p");
  line.className = "hidden";
  line.textContent = said;
  place.append(line);
  setTimeout(function () {
    line.remove();
  }, 3000);
});
