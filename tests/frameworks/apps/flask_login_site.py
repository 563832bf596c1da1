"""An application with Flask-Login, for a real server; the store comes from the environment."""

import os

from flask import Flask, session
from flask_login import (
    LoginManager,
    UserMixin,
    current_user,
    fresh_login_required,
    login_required,
    login_user,
    logout_user,
)

import sojourn

app = Flask(__name__)
app.config.update(
    SECRET_KEY="the secret of these tests: 8Kq2vR7x", SOJOURN_STORE=os.environ["STORE"]
)
sojourn.install(app)
manager = LoginManager(app)


@manager.user_loader
class User(UserMixin):
    """A user of any name."""

    def __init__(self, name):
        self.id = name


@app.get("/login/<name>")
def login(name):
    login_user(User(name), remember=True)
    return "ok"


@app.get("/logout")
def logout():
    logout_user()
    return "ok"


@app.get("/")
@login_required
def index():
    return f"{current_user.id} {session.user}"


@app.get("/fresh")
@fresh_login_required
def fresh():
    return current_user.id
