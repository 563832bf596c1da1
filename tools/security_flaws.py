"""What went wrong in other session layers, and what sojourn does about it: rows B-1 to B-60.

What lives here: one row for each flaw, in our words, with where it was seen. What must not: tests;
they cite a row's ID in their docstrings, and ``security_table.py`` puts both together. Read next:
``security_rows.py`` for what the fields mean and for the rows of the standards.
"""

from tools.security_row import Row

CACHES = [
    Row(
        "B-1",
        "a refreshed cookie went out without `Vary`: a proxy gave it to everybody "
        "(Flask CVE-2023-30861)",
        "whatever sends the cookie says `Vary: Cookie` and `private, no-store`",
    ),
    Row(
        "B-2",
        "`in` and `len` did not count as a look at the session (Flask CVE-2026-27205)",
        "every way of looking is told to caches",
    ),
    Row(
        "B-3",
        "a newer framework moved the code that noticed the look",
        "the same laws run through every adapter",
    ),
    Row(
        "B-4",
        "refreshing on every request sent a cookie without `Vary` (Django CVE-2026-35192)",
        "activity is noted on the server; no cookie is sent for it",
    ),
    Row(
        "B-5",
        "a cache kept answers that vary on everything (Django CVE-2026-6907)",
        "`Vary: *` of the application stays",
    ),
    Row(
        "B-6",
        "session cookies on pages that a CDN keeps (nextjs-auth0 CVE-2025-48947)",
        "beside our cookie `s-maxage`, `public` and headers for CDNs are dropped, with a warning",
    ),
    Row(
        "B-7",
        "pages of logged-in users without a word to caches (authkit-nextjs CVE-2025-64762)",
        "a read is `private`, that of a logged-in user `private, no-store`",
    ),
    Row(
        "B-8",
        "`public` beside a session cookie (Rails CVE-2024-26144)",
        "the two never leave together",
    ),
    Row(
        "B-9",
        "a framework's own cache kept cookies (Symfony CVE-2022-24894, rack-cache CVE-2012-2671)",
        "our headers say to every cache, inside or in front, that it must not",
    ),
]

FORMATS = [
    Row(
        "B-10",
        "pickled session data ran code (Beaker CVE-2013-7489)",
        "values are msgpack of a closed list of types; no pickle in the package",
    ),
    Row(
        "B-11",
        "a leaked key ran code through the cookie (web2py CVE-2016-3957)",
        "a key forges at most bytes; bytes never run",
    ),
    Row(
        "B-12",
        "old pickled records were still read (Flask-Session before 0.7)",
        "no reader of other formats exists",
    ),
    Row(
        "B-13",
        "where decryption failed, a plain decoder was tried (Rack CVE-2026-39324)",
        "one way to open a ticket; everything else is no ticket",
    ),
    Row(
        "B-14",
        "a value sealed for another cookie was taken as the session (Laravel 2018, 2020)",
        "realm and cookie name are part of what is sealed",
    ),
    Row(
        "B-15",
        "ECB mode showed and allowed patterns (Beaker CVE-2012-3458)",
        "AES-SIV: any changed bit is noise",
    ),
    Row(
        "B-16",
        "a shipped default key (Superset CVE-2023-27524, Airflow CVE-2020-17526)",
        "`secret`: no default; short, guessable and example secrets are refused",
    ),
    Row(
        "B-17",
        "secrets compared byte by byte (Rack CVE-2013-0263, Laravel CVE-2017-14775)",
        "`compare_digest` for verifiers, an AEAD for tickets, nothing else",
    ),
    Row(
        "B-18",
        "the lookup by a secret ID leaked it by timing (Rack CVE-2019-16782)",
        "records are found by the public ID; the verifier never goes to a store",
    ),
    Row(
        "B-19",
        "each worker made a key of its own (lua-resty-session 4.1.0)",
        "keys follow from the secret alone; generated secrets are shared by all workers",
    ),
    Row(
        "B-20",
        "a session file in a place of the attacker's choice was loaded (Tomcat CVE-2020-9484)",
        "no file is named after anything that a visitor sends; links are refused",
    ),
    Row(
        "B-21",
        "a truncated record was read as data (Drupal CVE-2016-3171)",
        "damaged records count as absent and are reported",
    ),
]

FIXATION = [
    Row(
        "B-22",
        "any cookie value became the ID of a new record (aiohttp-session CVE-2018-1000519)",
        "an unknown ID is never adopted",
    ),
    Row(
        "B-23",
        "IDs chosen by the client, in headers and queries too (PHP CVE-2011-4718)",
        "only our cookie is read",
    ),
    Row(
        "B-24",
        "the same, in current libraries",
        "the same law through every adapter",
    ),
    Row(
        "B-25",
        "the ID stayed at login (Passport CVE-2022-25896, Symfony CVE-2023-46733, others)",
        "`session.login` always makes a new verifier; the ticket from before is useless",
    ),
    Row(
        "B-26",
        "a changed ID overwrote another session (tower-sessions before 0.12.1)",
        "creating only inserts",
    ),
    Row(
        "B-27",
        "cookies planted from a sibling domain, nameless or encoded "
        "(Zitadel CVE-2024-28197, Werkzeug CVE-2023-23934)",
        "`__Host-` by default, names byte for byte, two different values count as none",
    ),
    Row(
        "B-28",
        "session IDs from the address (Rails CVE-2007-5380)",
        "only cookies are read",
    ),
    Row(
        "B-29",
        "one site's cookie opened another site's session (CodeIgniter CVE-2022-46170)",
        "`realm`: a ticket of another is noise",
    ),
    Row(
        "B-30",
        "session keys met cache keys of users (Django CVE-2011-4136, Litestar CVE-2026-25480)",
        "IDs are 16 random bytes of ours, never text of a visitor's",
    ),
    Row(
        "B-31",
        "an empty key was a session of everybody's (Django CVE-2015-3982)",
        "what is no ticket never reaches the store",
    ),
]

ENDINGS = [
    Row(
        "B-32",
        "a slow request wrote the ended session back (rack-session CVE-2025-46336)",
        "saving cannot create; gone is gone, in every store",
    ),
    Row(
        "B-33",
        "saving beside a deletion failed or left half a record (Spring Session #1270)",
        "a clean end: no error, no record",
    ),
    Row(
        "B-34",
        "a listener that failed left the session valid (Jetty CVE-2021-34428)",
        "the record goes first; listeners that raise are logged",
    ),
    Row(
        "B-35",
        "logout did not remove what was stored (Spring Security CVE-2023-20862)",
        "the record is deleted",
    ),
    Row(
        "B-36",
        "cookies that stayed good after logout or expiry (fastify CVE-2024-31999)",
        "the server decides; there is no session without a record",
    ),
    Row(
        "B-37",
        "loading moved the expiry (fastify CVE-2024-35220)",
        "limits are in the record; a load changes none",
    ),
    Row(
        "B-38",
        "another open tab made a new session after logout (JupyterHub CVE-2021-41247)",
        "a request whose session ended begins no other",
    ),
    Row(
        "B-39",
        "sessions survived a new password (Airflow CVE-2023-40273, Symfony CVE-2021-41268)",
        "`sessions.credentials_changed(user, keep=…)`",
    ),
    Row(
        "B-40",
        "a stolen remembered login was noticed and left alive (Gitea CVE-2026-56750)",
        "`on_reuse`: a replaced ticket ends the session",
    ),
    Row(
        "B-41",
        "sockets survived revocation (Mattermost CVE-2026-9162, Argo CD CVE-2023-40025)",
        "what a session has open ends with it",
    ),
    Row(
        "B-42",
        "a stream could be joined by its ID alone (MCP ruby-sdk CVE-2026-33946)",
        "sockets need the cookie; the ID opens nothing",
    ),
    Row(
        "B-43",
        "WebSockets without a look at the origin (Gitpod GHSA-f53g-frr2-jhpf)",
        "`allowed_origins`: foreign handshakes get 403 before the accept",
    ),
    Row(
        "B-44",
        "a deleting cookie that deletes nothing (oauth2-proxy CVE-2026-34454)",
        "the deleting cookie is the twin of the one that was set, and past",
    ),
    Row(
        "B-45",
        "a cached session counted as logged in before the second factor "
        "(better-auth GHSA-xg6x-h9c9-2m83)",
        "nobody is a user before `login`, and methods are noted with it",
    ),
]

SHOWN = [
    Row(
        "B-46",
        "a list of sessions showed their keys (django-user-sessions CVE-2020-5224)",
        "lists show IDs, which open nothing",
    ),
    Row(
        "B-47",
        "knowing an ID was enough to end others' sessions (Mattermost CVE-2017-18878)",
        "no request can name a session; `revoke` is for whoever holds the installation",
    ),
    Row(
        "B-48",
        "tokens stored in clear (TYPO3 CVE-2020-26228)",
        "records keep the SHA-256 of 128 random bits",
    ),
    Row(
        "B-49",
        "IDs printed to logs (Spring Session CVE-2023-20866)",
        "no log, repr, error or event shows ticket, verifier or secret",
    ),
    Row(
        "B-50",
        "session files that everybody could read or choose (beego CVE-2019-16354)",
        "files are 0600 in folders of 0700; links are refused",
    ),
    Row(
        "B-51",
        "a password kept in the session between steps (django-two-factor-auth CVE-2020-15105)",
        "types made to hide a secret are refused at the assignment",
    ),
    Row(
        "B-52",
        "one request's state met another's (Django Channels CVE-2020-35681)",
        "a session belongs to one request",
    ),
]

FLOODS = [
    Row(
        "B-53",
        "unknown cookies and logouts left empty records (Django CVE-2015-5143)",
        "nothing is stored before something is written",
    ),
    Row(
        "B-54",
        "sessions without end filled the memory (MCP ruby-sdk CVE-2026-67430)",
        "the memory store is bounded, and expired records go without traffic",
    ),
    Row(
        "B-55",
        "huge values and endless locks (Symfony CVE-2016-4423)",
        "`max_bytes`, `store_timeout`, bounded waits",
    ),
    Row(
        "B-56",
        "a cookie in any number of pieces (zrok CVE-2026-40303)",
        "one cookie of fixed length",
    ),
    Row(
        "B-57",
        "quadratic parsing of cookies (Tornado CVE-2024-52804)",
        "linear, and milliseconds for 64 KiB",
    ),
    Row(
        "B-58",
        "control characters in cookies split headers (CPython CVE-2026-0672)",
        "refused in names, values, paths and domains",
    ),
    Row(
        "B-59",
        "a timeout redirected to wherever the request said (Devise CVE-2026-40295)",
        "no answer of ours redirects",
    ),
    Row(
        "B-60",
        "`Secure` was configured and not sent (rdiffweb CVE-2022-3174)",
        "what is configured is sent, or refused at the start",
    ),
]

FLAWS = [*CACHES, *FORMATS, *FIXATION, *ENDINGS, *SHOWN, *FLOODS]
