"""Python's authlib as a client of our authorisation server.

    python issuer.py < given.json

Standard input is one JSON object: the issuer, the redirect URI, a person with a password, and the clients that
issuer.mjs has registered. Standard output is one JSON object a check: {"what": …, "got": …, "wanted": …}; whoever
started this compares. The browser's part is plain HTTP here: the forms of our pages are read and sent.
Exit status: 0 when all was tried.
"""

import json
import sys
import time
from html.parser import HTMLParser
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
from authlib.common.security import generate_token
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet


def say(what, got, wanted):
    print(json.dumps({"what": what, "got": got, "wanted": wanted}), flush=True)


def refusal(call):
    """The error code of a call that must not succeed."""
    try:
        call()
        return "none"
    except OAuthError as error:
        return error.error


class Form(HTMLParser):
    """The one form of a page: where it is sent to and what is in it already."""

    def __init__(self, response):
        super().__init__()
        self.action = None
        self.fields = {}
        self.address = str(response.url)
        self.feed(response.text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "form":
            self.action = urljoin(self.address, attributes.get("action") or "")
        if tag == "input":
            self.fields[attributes["name"]] = attributes.get("value") or ""

    def send(self, browser, **filled):
        return browser.post(self.action, data={**self.fields, **filled})


def agree(link, person):
    """A person opens `link`, signs in and agrees; the address they are sent back to."""
    with httpx.Client() as browser:
        page = browser.get(link, follow_redirects=True)
        page = Form(page).send(browser, email=person["email"], password=person["password"])
        page = browser.get(page.headers["location"], follow_redirects=True)
        return Form(page).send(browser, decision="allow").headers["location"]


class Check:
    def __init__(self, given):
        self.given = given
        self.server = httpx.get(f"{given['issuer']}/.well-known/openid-configuration").json()
        self.keys = KeySet.import_key_set(httpx.get(self.server["jwks_uri"]).json())

    def client(self, name, method, **more):
        client = self.given[name]
        secret = client.get("secret") or None
        return OAuth2Client(
            client["id"],
            secret,
            token_endpoint_auth_method=method,
            revocation_endpoint_auth_method=method,
            redirect_uri=self.given["redirect_uri"],
            code_challenge_method="S256",
            **more,
        )

    def active(self, client, token):
        return client.introspect_token(self.server["introspection_endpoint"], token=token).json()["active"]

    def connect(self, client):
        """Code and PKCE: the tokens."""
        verifier, nonce = generate_token(48), generate_token()
        link, state = client.create_authorization_url(
            self.server["authorization_endpoint"], code_verifier=verifier, nonce=nonce
        )
        back = agree(link, self.given["person"])
        answer = parse_qs(urlsplit(back).query)
        say("state and issuer come back", [answer["state"], answer["iss"]], [[state], [self.given["issuer"]]])
        tokens = client.fetch_token(
            self.server["token_endpoint"], authorization_response=back, state=state, code_verifier=verifier
        )
        return tokens, nonce, back, verifier

    def code(self, name, method):
        """What a client with a secret does with tokens of a person."""
        with self.client(name, method, scope="openid email workflows.read") as client:
            tokens, nonce, back, verifier = self.connect(client)
            claims = jwt.decode(tokens["id_token"], self.keys, algorithms=["ES256"])
            person = self.given["person"]
            identity = CodeIDToken(
                claims.claims,
                claims.header,
                {
                    "iss": {"essential": True, "value": self.given["issuer"]},
                    "aud": {"essential": True, "value": client.client_id},
                    "nonce": {"essential": True, "value": nonce},
                },
                {"nonce": nonce, "access_token": tokens["access_token"], "client_id": client.client_id},
            )
            identity.validate()
            say(f"{method}: the ID token is of the person", [identity["sub"], identity["email"]], [person["id"], person["email"]])
            info = client.get(self.server["userinfo_endpoint"]).json()
            say(f"{method}: user info is, too", [info["sub"], info["email"]], [person["id"], person["email"]])

            first = tokens["refresh_token"]
            token_endpoint = self.server["token_endpoint"]
            second = client.refresh_token(token_endpoint, refresh_token=first)
            say(f"{method}: refreshed", [self.active(client, second["access_token"]), second["refresh_token"] != first], [True, True])
            third = client.refresh_token(token_endpoint, refresh_token=second["refresh_token"])
            say(
                f"{method}: an old refresh token is refused",
                refusal(lambda: client.refresh_token(token_endpoint, refresh_token=first)),
                "invalid_grant",
            )
            say(f"{method}: and ends the others", self.active(client, third["access_token"]), False)

            tokens, _, back, verifier = self.connect(client)
            say(f"{method}: introspected", self.active(client, tokens["access_token"]), True)
            revoked = client.revoke_token(
                self.server["revocation_endpoint"], token=tokens["refresh_token"], token_type_hint="refresh_token"
            )
            say(f"{method}: revoked", [revoked.status_code, self.active(client, tokens["access_token"])], [200, False])
            say(
                f"{method}: a code is good once",
                refusal(
                    lambda: client.fetch_token(token_endpoint, authorization_response=back, code_verifier=verifier)
                ),
                "invalid_grant",
            )

    def public(self):
        with self.client("public", "none", scope="openid workflows.read") as client:
            tokens, *_ = self.connect(client)
            info = client.get(self.server["userinfo_endpoint"]).json()
            say("none: a token without a secret", info, {"sub": self.given["person"]["id"]})
            fresh = client.refresh_token(self.server["token_endpoint"], refresh_token=tokens["refresh_token"])
            say("none: refreshed", fresh["refresh_token"] != tokens["refresh_token"], True)
            revoked = client.revoke_token(self.server["revocation_endpoint"], token=fresh["refresh_token"])
            answer = client.get(self.server["userinfo_endpoint"])
            say("none: revoked", [revoked.status_code, answer.status_code], [200, 401])

    def own(self, name, method):
        """A token of the client's own."""
        with self.client(name, method) as client:
            grant = {"grant_type": "client_credentials", "scope": "workflows.read"}
            tokens = client.fetch_token(self.server["token_endpoint"], **grant)
            say(f"{method}: a token of its own", [tokens["scope"], "refresh_token" in tokens], ["workflows.read", False])
            say(f"{method}: which is good", self.active(client, tokens["access_token"]), True)

    def signing(self):
        """private_key_jwt: addressed to the issuer, for a minute (authlib's defaults: the endpoint, an hour)."""
        key = ECKey.import_key(self.given["signing"]["key"])
        client_id = self.given["signing"]["id"]
        header = {"kid": key.kid}
        with OAuth2Client(client_id, key, token_endpoint_auth_method="private_key_jwt") as client:

            def sign(audience, seconds):
                claims = {"exp": int(time.time()) + seconds}
                client.register_client_auth_method(PrivateKeyJWT(audience, claims, header, "ES256"))

            def fetch():
                return client.fetch_token(
                    self.server["token_endpoint"], grant_type="client_credentials", scope="workflows.read"
                )

            sign(self.given["issuer"], 60)
            say("private_key_jwt: a token of its own", fetch()["scope"], "workflows.read")
            say("private_key_jwt: an assertion is good once", refusal(fetch), "invalid_client")
            sign(self.server["token_endpoint"], 60)
            say("private_key_jwt: one for another audience is not", refusal(fetch), "invalid_client")


def main():
    check = Check(json.load(sys.stdin))
    check.code("basic", "client_secret_basic")
    check.code("post", "client_secret_post")
    check.public()
    check.own("basic", "client_secret_basic")
    check.own("post", "client_secret_post")
    check.signing()


if __name__ == "__main__":
    main()
