// The certified provider of npm's oidc-provider, with a person in it, on a port of loopback. Arguments: port, callback, logout address.
import { Provider } from "oidc-provider";

const [port, callback, logout] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "keyrack",
      client_secret: "a secret that both know, long enough",
      redirect_uris: [callback],
      backchannel_logout_uri: logout,
      backchannel_logout_session_required: true,
    },
  ],
  claims: { openid: ["sub", "sid"], profile: ["preferred_username", "groups"] },
  conformIdTokenClaims: false,
  features: { devInteractions: { enabled: true }, backchannelLogout: { enabled: true } },
  fetch: (url, options) => fetch(url, options),
  async findAccount(context, id) {
    return { accountId: id, claims: async () => ({ sub: id, preferred_username: id, groups: ["staff"] }) };
  },
});
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
