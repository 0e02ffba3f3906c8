"""The counterpart of every measurement: token endpoint and API in a few lines of asyncio, in a process of its own.

Rotates strictly: a refresh token is good for one use, and a second use ends its whole family, as Keycloak does with
*Revoke Refresh Token*. The second use is counted. Answers after a latency that can be set, and costs little CPU: it
shares the machine with what is measured. The same server listens in clear text and with TLS.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import secrets
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import certifi

REALM = "/auth/realms/third-party"
SIGNATURE_BYTES = 256
"""As long as that of a 2048-bit RSA key."""


def _part(data: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(data, separators=(",", ":")).encode()).decode().rstrip("=")


HEAD = _part({"alg": "RS256", "typ": "JWT", "kid": "N2Jk4mSbk3kqQ1bXnq3Jx9i0cYy6c0iA8yQ8TqS9h1E"})
ACCOUNT = {
    "company": "Bench GmbH",
    "mainProductType": "TEAM",
    "logoUrl": "https://www.example.com/logo.png",
    "verified": True,
}


class State:
    """Which tokens are good, and what was counted."""

    def __init__(self) -> None:
        self.live: dict[str, str] = {}  # refresh token → family
        self.spent: dict[str, str] = {}
        self.access: dict[str, str] = {}  # access token → family
        self.current: dict[str, str] = {}  # family → access token
        self.dead: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.values: dict[str, float] = {"latency": 0.0, "api_latency": 0.0, "lifetime": 300}
        self._numbers = itertools.count(1)

    def token(self, family: str, kind: str) -> str:
        """Return a token shaped and sized like a Keycloak one; the signature is random."""
        claims = {
            "exp": 1893456000,
            "iat": 1893455700,
            "jti": f"{next(self._numbers):08d}-{family}",
            "typ": kind,
            "iss": f"https://login.sipgate.com{REALM}",
            "aud": "account",
            "sub": "f:1f4f2b5e:w0",
            "azp": "1000000-1-bench:third-party",
            "session_state": family,
            "acr": "1",
            "realm_access": {"roles": ["offline_access", "uma_authorization"]},
            "scope": "account:read",
            "featureScope": "simquadrat",
            "domain": "sipgate.de",
            "masterSipId": "1000000",
        }
        return f"{HEAD}.{_part(claims)}.{secrets.token_urlsafe(SIGNATURE_BYTES)}"

    def issue(self, family: str) -> dict[str, Any]:
        access, refresh = self.token(family, "Bearer"), self.token(family, "Refresh")
        self.access.pop(self.current.get(family, ""), None)
        self.current[family], self.access[access], self.live[refresh] = access, family, family
        return {
            "access_token": access,
            "expires_in": self.values["lifetime"],
            "refresh_expires_in": 2_592_000,
            "refresh_token": refresh,
            "token_type": "Bearer",
            "not-before-policy": 0,
            "session_state": family,
            "scope": "account:read",
        }

    def rotate(self, token: str) -> tuple[int, dict[str, Any]]:
        self.counts["refresh"] += 1
        if token in self.spent:
            self.counts["reuse"] += 1
            self.dead.add(self.spent[token])
            return 400, {"error": "invalid_grant", "error_description": "Maximum allowed refresh token reuse exceeded"}
        family = self.live.pop(token, None)
        if family is None or family in self.dead:
            self.counts["refused"] += 1
            return 400, {"error": "invalid_grant", "error_description": "Session not active"}
        self.spent[token] = family
        self.counts["rotated"] += 1
        return 200, self.issue(family)

    def grant(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        kind = form.get("grant_type")
        if kind == "refresh_token":
            return self.rotate(form.get("refresh_token", ""))
        if kind == "authorization_code":  # the code is the person: nobody has to click here
            self.counts["code"] += 1
            return 200, self.issue(f"{form.get('code', '')}:{secrets.token_hex(6)}")
        return 400, {"error": "unsupported_grant_type"}

    def api(self, path: str, token: str) -> tuple[int, dict[str, Any]]:
        family = self.access.get(token)
        if family is None or family in self.dead:
            self.counts["api_401"] += 1
            return 401, {}
        self.counts["api"] += 1
        if path.endswith("/userinfo"):
            person = family.partition(":")[0].removeprefix("p")
            return 200, {"sub": "w0", "domain": "sipgate.de", "masterSipId": person, "locale": "de_DE"}
        return 200, ACCOUNT

    def control(self, order: dict[str, Any]) -> Any:
        if "issue" in order:
            return [self.issue(secrets.token_hex(8)) for _ in range(order["issue"])]
        if "alive" in order:
            return sum(token in self.live and self.live[token] not in self.dead for token in order["alive"])
        self.values.update(order.get("set", {}))
        answer = dict(self.counts)
        if order.get("reset"):
            self.counts.clear()
        return answer


class Protocol(asyncio.Protocol):
    """HTTP/1.1, kept alive: just enough of it for well-behaved clients."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.state.counts["connections"] += 1

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            lines = self.buffer[:end].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            total = end + 4 + int(headers.get("content-length", 0))
            if len(self.buffer) < total:
                return
            body, self.buffer = self.buffer[end + 4 : total].decode(), self.buffer[total:]
            self.answer(lines[0].split(" ")[1], headers, body)

    def answer(self, path: str, headers: dict[str, str], body: str) -> None:
        if path == "/control":
            return self.send(200, self.state.control(json.loads(body)))
        if path.endswith("/token"):
            form = {key: values[0] for key, values in parse_qs(body).items()}
            return self.later("latency", lambda: self.state.grant(form))
        token = headers.get("authorization", "").removeprefix("Bearer ")
        return self.later("api_latency", lambda: self.state.api(path, token))

    def later(self, name: str, work: Callable[[], tuple[int, Any]]) -> None:
        latency = self.state.values[name]
        if latency:
            asyncio.get_running_loop().call_later(latency, lambda: self.send(*work()))
        else:
            self.send(*work())

    def send(self, status: int, data: Any) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        body = json.dumps(data).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a self-signed certificate for the loopback address; return the files of certificate and key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


async def serve(folder: Path) -> None:
    state = State()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(folder))
    loop = asyncio.get_running_loop()
    plain = await loop.create_server(lambda: Protocol(state), "127.0.0.1", 0, backlog=1024)
    secure = await loop.create_server(lambda: Protocol(state), "127.0.0.1", 0, backlog=1024, ssl=context)
    ports = [server.sockets[0].getsockname()[1] for server in (plain, secure)]
    print(json.dumps(ports), flush=True)
    await plain.serve_forever()


@dataclass(frozen=True)
class Counterpart:
    """The running server as the bench sees it."""

    url: str
    secure_url: str
    ca_bundle: str
    """certifi's authorities and the counterpart's: as much to read as in production."""
    only_ca: str

    @property
    def token_url(self) -> str:
        return f"{self.url}{REALM}/protocol/openid-connect/token"

    @property
    def auth_url(self) -> str:
        return f"{self.url}{REALM}/protocol/openid-connect/auth"

    def control(self, **order: Any) -> Any:
        return control(self.url, **order)

    def set(self, *, latency: float = 0.0, api_latency: float = 0.0, lifetime: float = 300) -> None:
        """Set seconds of latency (token endpoint, API) and of an access token's life; put the counters to zero."""
        self.control(set={"latency": latency, "api_latency": api_latency, "lifetime": lifetime}, reset=True)

    def counts(self) -> Counter[str]:
        return Counter(self.control())


def control(url: str, **order: Any) -> Any:
    request = urllib.request.Request(f"{url}/control", data=json.dumps(order).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@contextmanager
def running() -> Iterator[Counterpart]:
    with tempfile.TemporaryDirectory(prefix="sipgate-bench-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.counterpart", folder], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            plain, secure = json.loads(process.stdout.readline())
            only, bundle = Path(folder) / "certificate.pem", Path(folder) / "bundle.pem"
            bundle.write_bytes(Path(certifi.where()).read_bytes() + only.read_bytes())
            yield Counterpart(f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{secure}", str(bundle), str(only))
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
