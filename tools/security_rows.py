"""What standards ask of a session layer: every requirement that a library enforces or helps with.

What lives here: ASVS 5.0, NIST SP 800-63B-4 and OWASP's cheat sheets, in our words. Requirements
that only documents or people can meet are not here. What must not: tests, which cite a row's ID in
their docstrings. Read next: ``security_flaws.py``, ``security_table.py``.
"""

from tools.security_flaws import FLAWS
from tools.security_row import Row

ASVS = [
    Row(
        "ASVS 1.5.2",
        "stored objects are read without running anything",
        "msgpack of a closed list of types",
    ),
    Row(
        "ASVS 3.3.1",
        "cookies are Secure and carry a prefix",
        "`__Host-sid` on https, without being asked",
    ),
    Row("ASVS 3.3.2", "SameSite is set on purpose", "`same_site`, always sent"),
    Row(
        "ASVS 3.3.3",
        "`__Host-` unless the cookie is shared on purpose",
        "a `domain` has to be typed and drops the prefix",
    ),
    Row("ASVS 3.3.4", "scripts cannot read the cookie", "HttpOnly is no option"),
    Row("ASVS 3.3.5", "name and value fit into 4096 bytes", "a ticket has 66 characters"),
    Row(
        "ASVS 3.5.1",
        "requests from other sites change nothing (with 3.5.2)",
        "a gate on Fetch Metadata and Origin, and `session.csrf_token`",
    ),
    Row(
        "ASVS 3.5.3",
        "methods that are safe change nothing",
        "the gate lets only GET, HEAD, OPTIONS and TRACE through unasked",
    ),
    Row(
        "ASVS 3.5.8",
        "other sites embed only what is meant for it",
        not_ours="which pages may be embedded is known to the application alone",
    ),
    Row(
        "ASVS 4.4.1",
        "WebSockets over TLS",
        "a session over plain ws only to this machine, as over http",
    ),
    Row("ASVS 4.4.2", "the handshake's Origin is checked", "`allowed_origins`; same origin"),
    Row(
        "ASVS 4.4.3",
        "a socket's session is that of the page, by the same rules (with 4.4.4)",
        "`websocket.session` is loaded by the same gate",
    ),
    Row(
        "ASVS 7.1.1",
        "idle and absolute limits are decided and stated",
        "`timeout`, `absolute_timeout`; no limit has to be typed",
    ),
    Row(
        "ASVS 7.1.2",
        "how many sessions a user may have, and what happens then",
        "`max_sessions`, `on_limit`",
    ),
    Row(
        "ASVS 7.1.3",
        "single sign-on: how sessions end together is decided and stated",
        "`sessions.revoke_where`; docs/users.md",
    ),
    Row("ASVS 7.2.1", "tickets are checked on the server", "in the gate and the engine"),
    Row("ASVS 7.2.2", "tickets are made for each session", "each is minted; none is configured"),
    Row(
        "ASVS 7.2.3",
        "unique, unpredictable, 128 bits or more",
        "16 + 16 random bytes; a taken ID is never overwritten",
    ),
    Row(
        "ASVS 7.2.4",
        "a new ticket at each authentication, the former one dead",
        "`session.login`; a user cannot be set in another way",
    ),
    Row("ASVS 7.3.1", "an idle limit is enforced", "`timeout`, on the server and for sockets"),
    Row("ASVS 7.3.2", "an absolute limit is enforced", "`absolute_timeout`, whatever the activity"),
    Row("ASVS 7.4.1", "nothing works after logout or expiry", "gone is gone"),
    Row(
        "ASVS 7.4.2",
        "disabling an account ends its sessions",
        "`sessions.revoke_user`",
    ),
    Row(
        "ASVS 7.4.3",
        "after a new password the other sessions can be ended",
        "`sessions.credentials_changed`, `revoke_user(keep=…)`",
    ),
    Row(
        "ASVS 7.4.5",
        "administrators can end the sessions of one user or of all",
        "`sessions.revoke_user`, `sessions.revoke_all`",
    ),
    Row(
        "ASVS 7.5.1",
        "authenticate again before sensitive changes",
        "`session.require_recent`",
    ),
    Row(
        "ASVS 7.5.2",
        "users see and end their sessions",
        "`sessions.list_user`, `sessions.revoke`",
    ),
    Row(
        "ASVS 7.5.3",
        "one more factor before highly sensitive operations",
        "grants that are used once",
    ),
    Row(
        "ASVS 7.6.1",
        "sessions end as agreed with the identity provider",
        '`labels={"idp_sid": …}` and revocation by it',
    ),
    Row("ASVS 7.6.2", "no session without an action", "nothing is stored before a write"),
    Row(
        "ASVS 8.3.2",
        "changed rights count at once",
        "each request and each message of a socket sees what others wrote",
    ),
    Row("ASVS 9", "self-contained tokens", not_ours="there are none: every session has a record"),
    Row(
        "ASVS 10.1.2",
        "state and nonce belong to the browser that asked",
        "`session.claim` gives a one-time value to one taker",
    ),
    Row("ASVS 11.2.2", "keys can be replaced", "`secret=[new, old]`"),
    Row("ASVS 11.4.1", "approved hash functions", "SHA-256, HKDF-SHA256, AES-SIV"),
    Row(
        "ASVS 11.5.1",
        "random values from a CSPRNG, 128 bits, not UUIDs (with 11.5.2)",
        "`secrets` alone",
    ),
    Row(
        "ASVS 14.2",
        "private data is protected where it is kept",
        "`encrypt`: by the secret, or by secret and ticket",
    ),
    Row("ASVS 14.2.1", "no secrets in addresses", "nothing reads or writes one there"),
    Row(
        "ASVS 14.2.2",
        "servers in between keep nothing private (with 14.2.5)",
        "`Vary`, `Cache-Control`; tried behind two caching proxies",
    ),
    Row(
        "ASVS 14.3.1",
        "the browser forgets at the end of a session",
        "`Clear-Site-Data` at logout",
    ),
    Row("ASVS 14.3.2", "private answers are not kept", "`private`, `no-store`"),
    Row("ASVS 14.3.3", "browsers keep no private data", "the cookie is sealed random bytes"),
    Row("ASVS 15.4.1", "shared objects are safe under threads", "laws of every store"),
    Row("ASVS 15.4.2", "check and act are one step", "insert-only create, compare-and-set save"),
    Row("ASVS 16.1", "it is known where logs go", "`audit`, checked at the start"),
    Row(
        "ASVS 16.2.1",
        "an entry says when, what and whose",
        "`audit`: one line of JSON for each event",
    ),
    Row("ASVS 16.2.5", "logs hold no ticket", "the ID may be logged; it opens nothing"),
    Row("ASVS 16.3", "what happens to sessions is logged", "`audit`, every event"),
    Row("ASVS 16.3.1", "authentication is logged", "`Authenticated`"),
    Row("ASVS 16.3.3", "refused tickets can be noticed", "`Rejected`, with the reason"),
    Row("ASVS 16.4", "entries stay whole", "one write for each line"),
    Row("ASVS 16.4.1", "nothing logged forges an entry", "JSON, one line"),
    Row("ASVS 16.5", "failing logs break nothing", "told to the log, and on"),
    Row("ASVS 16.5.3", "a failure closes the door", "503; no empty session over a real one"),
]

NIST = [
    Row("SESS-01", "the host issues the secret (with SESS-02, 03)", "minted here, never accepted"),
    Row("SESS-04", "bearer secrets end with the browser", "`persistent` is off"),
    Row(
        "SESS-05",
        "a remembered browser is no authentication",
        "remembered sessions count as not recently authenticated",
    ),
    Row("SESS-06", "limits hold with a good secret", "they are on the server"),
    Row(
        "SESS-07",
        "the secret follows the authentication (with SESS-10)",
        "`session.login`",
    ),
    Row(
        "SESS-08",
        "a session never exceeds its authentication (with SESS-09)",
        "methods are set by `login` alone",
    ),
    Row("SESS-11", "64 random bits or more", "128 in the verifier"),
    Row("SESS-12", "logout erases the secret (with SESS-16)", "record and cookie"),
    Row(
        "SESS-13",
        "only over a protected channel (with SESS-15, 18)",
        "`secure`; plain http only to this machine",
    ),
    Row("SESS-14", "limits by level", "`preset`"),
    Row(
        "SESS-19",
        "posted content carries what only this session has",
        "`session.csrf_token`",
    ),
    Row(
        "SESS-20",
        "and it is verified",
        "`sessions.check_csrf`",
    ),
    Row(
        "COOK-01",
        "Secure, narrow, HttpOnly, `__Host-`, SameSite (with COOK-02, 03, 06, 07)",
        "the default",
    ),
    Row("COOK-04", "a cookie's age is near the session's", "`persistent`: the absolute limit"),
    Row("COOK-05", "and is not relied on", "an eternal cookie changes nothing"),
    Row("COOK-08", "an opaque string, nothing personal (with COOK-09)", "sealed random bytes"),
    Row("REAUTH-02", "limits of AAL1 to AAL3 (to REAUTH-07)", "`preset`"),
    Row("REAUTH-06", "the limit of AAL3 cannot be exceeded", "a longer one is refused"),
    Row("REAUTH-08", "either limit ends the session", "record, sockets and streams"),
    Row(
        "REAUTH-09",
        "activity restarts the idle limit",
        "touches, but for those of `passive` paths",
    ),
    Row("REAUTH-10", "a new login restarts both limits", "`session.login`, and nothing else"),
]

OWASP = [
    Row("OWASP-1", "names and IDs that tell nothing", "`sid`; random bytes"),
    Row("OWASP-2", "an ID is untrusted input", "shape and seal before the store is asked"),
    Row("OWASP-3", "unknown IDs are never accepted, and told", "`Rejected`"),
    Row("OWASP-4", "renewal with a safety interval", "`rotate`"),
    Row("OWASP-5", "the session's life can be logged", "events, each with the ID"),
    Row(
        "OWASP-6",
        "address and browser are hints, not proof",
        "`check_labels`, off by default",
    ),
    Row("OWASP-7", "answers that carry an ID are not stored", "`no-store` beside the cookie"),
    Row("OWASP-8", "sockets end with the session", "closed at expiry, logout and revocation"),
]

STANDARDS = [*ASVS, *NIST, *OWASP]
ROWS = [*STANDARDS, *FLAWS]
