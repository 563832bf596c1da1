"""The last output transform of a response with a ticket (law A13)."""

from __future__ import annotations

from tornado.httputil import HTTPHeaders
from tornado.web import OutputTransform

from sojourn.web.cache_headers import RawHeaders, replace_caching, select_caching
from sojourn.web.installation import WebInstallation
from sojourn.web.ticket_protection import protect_ticket


class TicketProtection(OutputTransform):
    """Lets no cache store a ticket, whatever the application's transforms have changed.

    Args:
        web: the installation.
        added: the headers with the ticket; see ``find_added``.
    """

    def __init__(self, web: WebInstallation, added: RawHeaders) -> None:
        self._web = web
        self._added = added

    def transform_first_chunk(
        self,
        status_code: int,
        headers: HTTPHeaders,
        chunk: bytes,
        finishing: bool,  # noqa: ARG002, FBT001 - as in Tornado
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Replace the caching headers, before they are sent."""
        selected = select_caching(headers.get_all())
        sent = protect_ticket(self._web, selected, self._added)
        if sorted(sent) != sorted(selected):
            replace_caching(
                selected, sent, remove=lambda name: headers.pop(name, None), add=headers.add
            )
        return status_code, headers, chunk
