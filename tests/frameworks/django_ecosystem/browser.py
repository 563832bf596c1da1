"""A browser for the project: forms with a CSRF token, logins, WebSockets with the same cookies."""

import re

import httpx
from websockets.asyncio.client import connect

from tests.frameworks.django_ecosystem.prepare import PASSWORD

TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


class Browser(httpx.Client):
    """Follows redirects, submits forms and keeps cookies."""

    def __init__(self, url: str) -> None:
        super().__init__(
            base_url=url,
            follow_redirects=True,
            timeout=30,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def submit(self, path: str, **fields: str) -> httpx.Response:
        """Load the page of a form and submit the form."""
        page = self.get(path)
        found = TOKEN.search(page.text)
        assert found is not None, page.text
        return self.post(path, data={**fields, "csrfmiddlewaretoken": found[1]})

    def log_in(self, username: str, path: str = "/admin/login/") -> httpx.Response:
        """Log in with the form of the admin; its ``next`` is the index."""
        return self.submit(path, username=username, password=PASSWORD, next="/")

    def user(self) -> str | None:
        """Return the user name on the index page."""
        user: str | None = self.get("/").raise_for_status().json()["user"]
        return user

    def token(self) -> dict[str, str]:
        """Return the CSRF header for a request of a script."""
        return {"x-csrftoken": self.get("/token").text}

    def cookie_header(self) -> dict[str, str]:
        """Return the cookies as a header."""
        return {"cookie": "; ".join(f"{each.name}={each.value}" for each in self.cookies.jar)}

    def copy(self) -> "Browser":
        """Return another client with the present cookies."""
        other = Browser(str(self.base_url))
        for each in self.cookies.jar:
            other.cookies.jar.set_cookie(each)
        return other

    def socket(self, path: str, origin: str | None = None) -> connect:
        """Open a WebSocket; from a page of this server unless another origin is given."""
        url = str(self.base_url).replace("http", "ws", 1).rstrip("/") + path
        origin = origin or str(self.base_url).rstrip("/")
        return connect(url, additional_headers=self.cookie_header(), origin=origin)
