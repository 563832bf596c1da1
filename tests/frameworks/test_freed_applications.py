"""An unreferenced application is freed with its sessions; test suites create many of them."""

import gc
import weakref

import aiohttp.web
import bottle
import falcon.asgi
import flask
import litestar
import pytest
import quart
import tornado.web
from fastapi import FastAPI
from pyramid.config import Configurator
from starlette.applications import Starlette

import sojourn

FACTORIES = {
    "aiohttp": aiohttp.web.Application,
    "bottle": bottle.Bottle,
    "falcon": falcon.asgi.App,
    "fastapi": FastAPI,
    "flask": lambda: flask.Flask(__name__),
    "litestar": litestar.Litestar,
    "pyramid": Configurator,
    "quart": lambda: quart.Quart(__name__),
    "starlette": Starlette,
    "tornado": tornado.web.Application,
}  # Sanic and BlackSheep keep references to their applications


@pytest.mark.parametrize("name", FACTORIES)
def test_unreferenced_application_is_freed(name):
    app = FACTORIES[name]()
    sessions = weakref.ref(sojourn.install(app, store="memory://"))
    assert sojourn.get(app) is sessions()
    del app
    gc.collect()
    gc.collect()  # the first one frees the application, which the sessions belong to
    assert sessions() is None
