// The form for a public key: stops a private key before it leaves the browser, and takes the title from the comment.
"use strict";
(function () {
  const area = document.getElementById("field-public_key");
  const title = document.getElementById("field-title");
  const verdict = document.getElementById("verdict");
  if (!area || !title) return;
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
})();
