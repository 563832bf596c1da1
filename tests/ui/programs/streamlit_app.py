"""Streamlit with sessions on the server: `uvicorn streamlit_app:app`."""

import streamlit as st
from starlette.middleware import Middleware
from starlette.responses import RedirectResponse
from starlette.routing import Route

import sojourn
from sojourn.frameworks.starlette import SessionMiddleware

sessions = sojourn.Sessions(cookie="session")


async def login(request):
    request.session.login(request.path_params["user"])
    return RedirectResponse("/")


async def logout(request):
    request.session.logout()
    return RedirectResponse("/")


app = st.App(
    "streamlit_page.py",
    routes=[Route("/login/{user}", login), Route("/logout", logout)],
    middleware=[Middleware(SessionMiddleware, sessions=sessions)],
)
