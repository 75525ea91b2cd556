// Has the browser make or show a passkey, and sends its answer with the form; decides nothing.
"use strict";
(function () {
  function bytes(text) {
    const plain = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
    return Uint8Array.from(plain, (char) => char.charCodeAt(0));
  }
  function text(buffer) {
    let plain = "";
    for (const byte of new Uint8Array(buffer)) plain += String.fromCharCode(byte);
    return btoa(plain).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  }
  function opened(options) {
    options.challenge = bytes(options.challenge);
    if (options.user) options.user.id = bytes(options.user.id);
    for (const list of [options.excludeCredentials, options.allowCredentials]) {
      for (const one of list || []) one.id = bytes(one.id);
    }
    return options;
  }
  function written(made) {
    const response = { clientDataJSON: text(made.response.clientDataJSON) };
    for (const name of ["attestationObject", "authenticatorData", "signature", "userHandle"]) {
      if (made.response[name]) response[name] = text(made.response[name]);
    }
    return JSON.stringify({ id: made.id, rawId: text(made.rawId), type: made.type, response, clientExtensionResults: {} });
  }
  for (const form of document.querySelectorAll("form[data-passkey]")) {
    const answer = form.querySelector('input[name="answer"], input[name="proof_passkey"]');
    const problem = form.querySelector("[data-passkey-problem]");
    if (!window.PublicKeyCredential) {
      form.querySelector("button").disabled = true;
      problem.textContent = "This browser knows no passkeys.";
      continue;
    }
    form.addEventListener("submit", async function (event) {
      if (answer.value) return;
      event.preventDefault();
      problem.textContent = "";
      try {
        const publicKey = opened(JSON.parse(form.dataset.options));
        const made = await navigator.credentials[form.dataset.passkey]({ publicKey });
        answer.value = written(made);
        form.submit();
      } catch (error) {
        const known = error.name === "InvalidStateError";
        problem.textContent = known ? "This device has a passkey of yours already." : "Nothing was shown or made. Try again.";
      }
    });
  }
})();
