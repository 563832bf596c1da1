"""FastHTML with sessions on the server: `uvicorn fasthtml_app:app`."""

from fasthtml.common import A, Div, FastHTML, P, RedirectResponse

from sojourn.frameworks.starlette import SessionMiddleware

app = FastHTML(sess_cls=SessionMiddleware)


@app.route("/")
def home(session):
    session["visits"] = session.get("visits", 0) + 1
    greeting = f"{session.user or 'Guest'}: visit {session['visits']}"
    return Div(P(greeting), A("Log out", href="/logout"))


@app.route("/login/{user}")
def login(session, user: str):
    session.login(user)  # replaces the ticket, and makes the session revocable
    return RedirectResponse("/", status_code=303)


@app.route("/logout")
def logout(session):
    session.logout()
    return RedirectResponse("/", status_code=303)
