// The form for a public key: stops a private key before it leaves the browser, and takes the title from the comment.
"use strict";
(function () {
  const area = document.getElementById("field-public_key");
  const title = document.getElementById("field-title");
  const verdict = document.getElementById("verdict");
  const ends = document.getElementById("field-ends");
  const until = document.getElementById("until");
  if (!area || !title || !ends || !until) return;
  let given = "";
  area.addEventListener("input", function (event) {
    if (/PRIVATE KEY|PuTTY-User-Key-File/.test(area.value)) {
      area.value = "";
      event.stopImmediatePropagation();
      const words = document.createElement("p");
      words.className = "problem";
      words.textContent = "That is a private key. It was not sent anywhere. Paste the public key: the file that ends in .pub.";
      verdict.replaceChildren(words);
      return;
    }
    const line = area.value.trim().split(/\s+/);
    const comment = line.length > 2 && /^(ssh-|ecdsa-|sk-)/.test(line[0]) ? line.slice(2).join(" ") : "";
    if (comment && (title.value === "" || title.value === given)) title.value = given = comment.slice(0, 100);
  }, true);
  const zone = document.querySelector('input[name="zone"]');
  function show() {
    until.hidden = ends.value !== "date";
  }
  ends.addEventListener("change", show);
  document.getElementById("field-until").addEventListener("change", function (event) {
    const at = new Date(event.target.value);
    if (zone && !isNaN(at)) zone.value = String(at.getTimezoneOffset());
  });
  show();
})();
