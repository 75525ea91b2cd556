"""The plain first page for whoever asks without a browser; must show nothing of any workspace."""

from __future__ import annotations

from html import escape

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Keyrack</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.55 system-ui, sans-serif; max-width: 50rem; margin: 3rem auto; padding: 0 1.2rem }}
pre {{ padding: .8rem 1rem; overflow-x: auto; border: 1px solid #8885; border-radius: 6px; font-size: 14px }}
h1 {{ margin-bottom: .2rem }}
h1 + p {{ margin-top: 0; opacity: .8 }}
</style>
</head>
<body>
<h1>Keyrack</h1>
<p>Register an SSH public key once; it opens exactly the servers and Git repositories it should.</p>
<h2>Next steps</h2>
<ol>
<li>Put a key on a server (RunCloud's API):
<pre>curl -sS {url}/api/v3/servers/SERVER_ID/ssh/credentials \\
  -H "Authorization: Bearer TOKEN" -H "Content-Type: application/json" \\
  -d '{{"label": "laptop", "username": "USER",
       "publicKey": "ssh-ed25519 AAAA…"}}'</pre></li>
<li>Log in with it: <pre>ssh USER@HOST</pre></li>
<li>Register a key of your own for all servers you are granted (CodeArts' API):
<pre>curl -sS {url}/v4/user/keys \\
  -H "X-Auth-Token: TOKEN" -H "Content-Type: application/json" \\
  -d '{{"title": "laptop", "key": "ssh-ed25519 AAAA…"}}'</pre></li>
</ol>
<p>SERVER_ID, USER and TOKEN come from whoever runs this service: <code>keyrack apply</code> makes servers, users and
their tokens from a file, and <code>keyrack up</code>, which tries everything on one machine, prints a token when it
starts. Whoever has a password gets a token for a day with <code>POST /v3/auth/tokens</code>. All calls are described in
<a href="/docs">the API's documentation</a>.</p>
</body>
</html>
"""


def page(url: str) -> str:
    """The page, for a service reached at `url`."""
    return _PAGE.format(url=escape(url))
