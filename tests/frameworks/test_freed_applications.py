"""An application that is dropped is freed with its sessions, as test suites make many of them."""

import gc

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

NUMBER = 5

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
}  # Sanic and BlackSheep keep their applications themselves


def count_sessions() -> int:
    gc.collect()
    gc.collect()  # the first one frees the applications, which the sessions belong to
    return sum(isinstance(each, sojourn.Sessions) for each in gc.get_objects())


@pytest.mark.parametrize("name", FACTORIES)
def test_a_dropped_application_is_freed(name):
    before = count_sessions()
    apps = [FACTORIES[name]() for _ in range(NUMBER)]
    for app in apps:
        sojourn.install(app, store="memory://")
    assert all(sojourn.get(app).store is not None for app in apps)
    assert count_sessions() >= before + NUMBER
    del app, apps
    assert count_sessions() <= before
