"""Caches in front of a real server: ``SharedCache`` and nginx."""

import os
import shutil
import subprocess
import time
from contextlib import contextmanager, suppress

import httpx

from tests.integration.valkey import free_port
from tests.security.shared_cache import SharedCache
from tests.support.servers import START, STOP, TLS
from tests.support.supervisor import supervise

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

# Stores every status for a minute unless the response forbids it, also with Set-Cookie, as RFC 9111
# allows. Only the headers of the responses protect visitors.
CONFIGURATION = """
daemon off; pid "{folder}/nginx.pid"; error_log "{folder}/error.log"; worker_processes 1; {user}
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path "{folder}/t1"; proxy_temp_path "{folder}/t2";
  fastcgi_temp_path "{folder}/t3"; uwsgi_temp_path "{folder}/t4"; scgi_temp_path "{folder}/t5";
  proxy_cache_path "{folder}/cache" keys_zone=all:1m;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{server};
      proxy_set_header Host $http_host;
      proxy_cache all;
      proxy_cache_valid any 1m;
      proxy_cache_revalidate on;
      proxy_ignore_headers Set-Cookie;
      add_header X-Cache $upstream_cache_status always;
    }}
  }}
}}
"""


class Front:
    """The front end of the server: a client without a cookie jar."""

    def __init__(self, client, hits):
        self._client = client
        self._hits = hits

    def get(self, path, *, cookie=None, method="GET", headers=()):
        """Send a request and return the response."""
        sent = {"accept": "text/plain", **dict(headers)}
        if cookie is not None:
            sent["cookie"] = cookie
        answer = self._client.request(method, path, headers=sent)
        self._client.cookies.clear()  # each visitor of a test has its own cookie
        return answer

    def hit(self, answer):
        """Return whether a response came from the cache."""
        return self._hits(answer)


@contextmanager
def shared_cache(server):
    """Put ``SharedCache`` in front of a server."""
    cache = SharedCache()
    with httpx.Client(transport=cache, base_url=server.url) as client:
        yield Front(client, lambda answer: "age" in answer.headers)


@contextmanager
def nginx(server, folder):
    """Put nginx in front of a server."""
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    file = folder / "nginx.conf"
    text = CONFIGURATION.format(folder=folder, port=port, server=server.port, user=user)
    file.write_text(text, "utf-8")
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(file)])
    supervise(process.pid)
    try:
        with httpx.Client(base_url=f"http://localhost:{port}", verify=TLS) as client:
            wait_until_ready(client, process, folder)
            yield Front(client, lambda answer: answer.headers.get("x-cache") == "HIT")
    finally:
        process.terminate()
        process.wait(STOP)


def wait_until_ready(client, process, folder):
    """Poll until the first response: the process sends no notification when it listens."""
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            client.get("/anonymous?started")
            return
        time.sleep(0.02)  # another process starts
    raise AssertionError((folder / "error.log").read_text("utf-8"))
