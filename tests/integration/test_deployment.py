"""Each command and file of the page on deployment is executed or used.

Programs that are not installed are skipped: nginx, Caddy, systemd.
"""

import asyncio
import contextlib
import datetime as dt
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest
import websockets
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.valkey import Valkey, free_port, wait_for_port
from tests.support.processes import serving
from tests.support.supervisor import supervise

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PAGE = (Path(__file__).parent.parent.parent / "docs/production/deployment.md").read_text("utf-8")

FILES = dict(re.findall(r'^```\w+ title="([\w.]+)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"^```bash\n(.*?)\n```$", PAGE, re.MULTILINE)

#: The environment of the programs of the page.
ASGI_ROUTES = """

import asyncio
from pathlib import Path
from fastapi import WebSocket
from fastapi.responses import StreamingResponse


@app.get("/slow")
async def slow(session: SessionDep):
    session["slow"] = "kept"
    Path("slow-request").touch()
    await asyncio.sleep(1)
    return {}


@app.get("/kept")
async def kept(session: SessionDep):
    return {"slow": session.get("slow")}


@app.websocket("/socket")
async def socket(websocket: WebSocket):
    await websocket.accept()
    while True:
        await websocket.receive_text()
        await websocket.send_json({"visits": websocket.session.get("visits")})


@app.get("/events")
async def events():
    async def stream():
        yield "data: 1\\n\\n"
        await asyncio.sleep(5)
        yield "data: 2\\n\\n"

    return StreamingResponse(stream(), media_type="text/event-stream")
"""
WSGI_ROUTES = """

import time
from pathlib import Path


@app.get("/slow")
def slow():
    session["slow"] = "kept"
    Path("slow-request").touch()
    time.sleep(1)
    return {}


@app.get("/kept")
def kept():
    return {"slow": session.get("slow")}
"""


#: The workers of a server may import the application after it listens.
get = functools.partial(httpx.get, timeout=30)


@pytest.fixture
def folder(tmp_path):
    write_programs(tmp_path)
    return tmp_path


def write_programs(folder: Path, more: str = "") -> None:
    """Write the programs of the page.

    Args:
        folder: for ``app.py`` and ``wsgi.py``.
        more: a line appended to both.
    """
    (folder / "app.py").write_text(FILES["app.py"] + ASGI_ROUTES + more, "utf-8")
    (folder / "wsgi.py").write_text(FILES["wsgi.py"] + WSGI_ROUTES + more, "utf-8")


def words_of(command: str) -> list[str]:
    """Return the arguments of a command, with a free port."""
    return [re.sub(r"\b8000$", "PORT", word) for word in shlex.split(command)]


def count_visits(url: str, visits: int = 12) -> dict[str, str]:
    """Visit with a new connection each time, so that several workers respond; return the cookie."""
    cookies: dict[str, str] = {}
    for number in range(1, visits + 1):
        answer = get(f"{url}/", cookies=cookies)
        assert answer.json() == {"visits": number}
        cookies.update(answer.cookies)
    return cookies


# Servers


def test_the_page_has_a_command_for_each_server():
    started = {tuple(shlex.split(command)[:2]) for command in COMMANDS}
    assert len(COMMANDS) == 7
    assert {name for name, _ in started} == {"uvicorn", "gunicorn", "granian", "hypercorn"}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_workers_of_a_server_share_sessions_and_stop_gracefully(command, folder):
    """A1, A6: the changes of a request in flight at SIGTERM are kept."""
    answers = []

    def request_slowly(address: str, cookies: dict[str, str]) -> None:
        answers.append(get(f"{address}/slow", cookies=cookies))

    finishes_requests = not command.startswith("hypercorn")  # it terminates the other workers
    with serving(*words_of(command), folder=folder) as url:
        assert get(f"{url}/health/").json()["store"] == "ok"
        assert get(f"{url}/health/live").json() == {"status": "ok"}
        cookies = count_visits(url)
        slow = threading.Thread(target=request_slowly, args=(url, cookies))
        if finishes_requests:
            slow.start()
        while slow.is_alive() and not (folder / "slow-request").exists():
            time.sleep(0.02)  # another process serves the request
    if finishes_requests:
        slow.join()
        assert answers[0].status_code == 200
    with serving(*words_of(command), folder=folder) as url:
        found = get(f"{url}/kept", cookies=cookies).json()
        assert found == {"slow": "kept" if finishes_requests else None}


WRAPPERS = {
    tuple(name.split(", ")): line.replace("10.0.0.5", "127.0.0.1")
    for name, line in re.findall(r"^\| (granian, \w+|hypercorn) \| `(.*?)` \|$", PAGE, re.MULTILINE)
}
ARGUMENTS = {
    name: shlex.split(line.replace("10.0.0.5", "127.0.0.1"))
    for name, line in re.findall(r"^\| (uvicorn|gunicorn) \| `(.*?)` \|$", PAGE, re.MULTILINE)
}


@pytest.mark.parametrize("command", COMMANDS)
def test_server_trusts_the_scheme_of_its_proxy(command, tmp_path):
    """A14: the cookie is that of https, as in the table of the page."""
    words = words_of(command)
    kind = "WSGI" if "wsgi:app" in words else "ASGI"
    line = WRAPPERS.get((words[0], kind)) or WRAPPERS.get((words[0],))
    more = ""
    if line is not None:
        module = re.search(r"= ([\w.]+)\.\w+\(", line)[1]
        more = f"\nimport {module}\n{line}\n"
    write_programs(tmp_path, more)
    forwarded = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "192.0.2.7",
        "Host": "shop.example",
    }
    with serving(*words, *ARGUMENTS.get(words[0], ()), folder=tmp_path) as url:
        answer = get(f"{url}/", headers=forwarded)
        assert answer.headers["set-cookie"].startswith("__Host-sid=")
        assert "; secure" in answer.headers["set-cookie"].lower()


# Proxies

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
NGINX = shutil.which("nginx", path=PATH)
CADDY = shutil.which("caddy", path=PATH)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return the files of a certificate and its key, for the page's host name and localhost."""
    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.example")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("shop.example"), x509.DNSName("localhost")]
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "fullchain.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder


@contextlib.contextmanager
def nginx(server, certificate, folder):
    """Run nginx with the file of the page; yield its address."""
    port = free_port()
    text = FILES["nginx.conf"].replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    text = text.replace("127.0.0.1:8000", server.removeprefix("http://"))
    text = text.replace("/etc/ssl/shop.example", str(certificate))
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("http {", "http { access_log off; " + paths, 1)
    user = "user root;" if os.geteuid() == 0 else ""
    file = folder / "nginx.conf"
    file.write_text(f"daemon off; pid {folder}/pid; error_log {folder}/log; {user}\n{text}")
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(file)])
    supervise(process.pid)
    try:
        wait_for_port(port)
        yield f"https://localhost:{port}"
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def caddy(server, certificate, folder):
    """Run Caddy with the file of the page; yield its address."""
    port = free_port()
    site = f"https://localhost:{port} {{\n    bind 127.0.0.1\n    tls {certificate}/fullchain.pem "
    text = FILES["Caddyfile"].replace("shop.example {", site + f"{certificate}/privkey.pem")
    text = text.replace("127.0.0.1:8000", server.removeprefix("http://"))
    file = folder / "Caddyfile"
    file.write_text("{\n    admin off\n    auto_https off\n}\n" + text)
    process = subprocess.Popen(
        [CADDY, "run", "--config", str(file), "--adapter", "caddyfile"],
        env={**os.environ, "HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    supervise(process.pid)
    try:
        wait_for_port(port)
        yield f"https://localhost:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize(
    "proxy",
    [
        pytest.param(
            nginx, marks=pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
        ),
        pytest.param(
            caddy, marks=pytest.mark.skipif(CADDY is None, reason="Caddy is not installed")
        ),
    ],
)
def test_proxy_forwards_cookies_websockets_and_event_streams(proxy, certificate, folder):
    """A14, W1: https to the proxy, http to the server, with the configuration of the page."""
    import ssl

    context = ssl.create_default_context(cafile=str(certificate / "fullchain.pem"))
    command = (
        *("uvicorn", "app:app", "--port", "PORT"),
        *("--proxy-headers", "--forwarded-allow-ips", "127.0.0.1"),
    )
    with serving(*command, folder=folder) as server, proxy(server, certificate, folder) as url:
        with httpx.Client(base_url=url, verify=context, timeout=30) as visitor:
            first = visitor.get("/")
            assert first.headers["set-cookie"].startswith("__Host-sid=")
            assert visitor.get("/").json() == {"visits": 2}
            assert visitor.get("/health/").status_code in (403, 404)
            started = time.monotonic()
            with visitor.stream("GET", "/events") as stream:
                assert next(stream.iter_text()) == "data: 1\n\n"
                assert time.monotonic() - started < 4
            cookie = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())

        async def talk(origin: str) -> object:
            async with websockets.connect(
                url.replace("https", "wss") + "/socket",
                ssl=context,
                origin=origin,
                additional_headers={"Cookie": cookie},
            ) as websocket:
                await websocket.send("visits?")
                return json.loads(await websocket.recv())

        assert asyncio.run(talk(url)) == {"visits": 2}
        with pytest.raises(websockets.InvalidStatus):
            asyncio.run(talk("https://other.example"))


# Files


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(("yaml", "yml"))])
def test_a_yaml_file_is_valid(name):
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(FILES[name]))


def test_command_of_the_container_image_serves_a_healthy_application(folder):
    compose = yaml.safe_load(FILES["compose.yaml"])
    command = json.loads(re.search(r"^CMD (\[.*\])$", PAGE, re.MULTILINE)[1])
    words = ["127.0.0.1" if word == "0.0.0.0" else word for word in command]  # noqa: S104 - compared
    check = compose["services"]["app"]["healthcheck"]["test"]
    with serving(*words_of(shlex.join(words)), folder=folder) as url:
        count_visits(url)
        probe = [word.replace("http://127.0.0.1:8000", url) for word in check[2:]]
        subprocess.run(["python3", *probe], check=True, env={"PATH": os.environ["PATH"]})


def test_server_of_the_compose_file_causes_no_warning(folder):
    """S13: about its settings, at startup."""
    compose = yaml.safe_load(FILES["compose.yaml"])
    name, *options = compose["services"]["valkey"]["command"]
    assert name == "valkey-server"
    with contextlib.ExitStack() as stack:
        valkey = Valkey(folder, *options)
        valkey.start()
        stack.callback(valkey.stop)
        environ = {
            "SOJOURN_STORE": f"redis://127.0.0.1:{valkey.port}/0",
            "SOJOURN_SECRET": "wT4-secret-of-a-deployment-Lq8",
        }
        with serving("uvicorn", "app:app", "--port", "PORT", folder=folder, environ=environ) as url:
            count_visits(url)
    assert "persistence" not in (folder / "server.log").read_text()
    assert "policy" not in (folder / "server.log").read_text()


def test_kubernetes_probes_succeed(folder):
    secret, deployment, service = yaml.safe_load_all(FILES["kubernetes.yaml"])
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert {each["valueFrom"]["secretKeyRef"]["key"] for each in container["env"]} == set(
        secret["stringData"]
    )
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    command = container["command"]
    stop = int(command[command.index("--timeout-graceful-shutdown") + 1])
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert stop + wait < pod["terminationGracePeriodSeconds"]
    words = ["127.0.0.1" if word == "0.0.0.0" else word for word in command]  # noqa: S104 - compared
    with serving(*words_of(shlex.join(words)), folder=folder) as url:
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert get(url + container[name]["httpGet"]["path"]).status_code == 200


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_unit_is_valid(tmp_path):
    program = tmp_path / "uvicorn"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "shop.service"
    unit.write_text(FILES["shop.service"].replace("/srv/shop/venv/bin/uvicorn", str(program)))
    result = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    lines = [line for line in result.stderr.splitlines() if "shop.service" in line]
    assert lines == []


def test_gunicorn_configuration_serves_the_application(folder):
    """The file of the page on scaling."""
    page = (Path(__file__).parent.parent.parent / "docs/production/scaling.md").read_text("utf-8")
    [text] = re.findall(r'title="gunicorn.conf.py"\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)
    (folder / "gunicorn.conf.py").write_text(text.replace('"0.0.0.0:8000"', '"127.0.0.1:0"'))
    with serving("gunicorn", "wsgi:app", "--bind", "127.0.0.1:PORT", folder=folder) as url:
        count_visits(url)
