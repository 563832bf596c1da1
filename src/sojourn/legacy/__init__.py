"""Readers of the sessions that visitors have from other libraries, for ``read_legacy``.

Each verifies and decodes what its library wrote, with the standard library and ``cryptography``.
"""

from sojourn.legacy.aiohttp_session import AiohttpEncryptedCookie, AiohttpRedis
from sojourn.legacy.django import DjangoCache, DjangoCookie, DjangoDatabase
from sojourn.legacy.fastapi_redis_sdk import FastAPIRedisSDK
from sojourn.legacy.flask import FlaskCookie, FlaskSessionRedis
from sojourn.legacy.litestar import LitestarRedis
from sojourn.legacy.starlette import StarletteCookie
from sojourn.legacy.starsessions import StarsessionsCookie, StarsessionsRedis
from sojourn.web.legacy_reader import LegacyReader, LegacySession

__all__ = [
    "AiohttpEncryptedCookie",
    "AiohttpRedis",
    "DjangoCache",
    "DjangoCookie",
    "DjangoDatabase",
    "FastAPIRedisSDK",
    "FlaskCookie",
    "FlaskSessionRedis",
    "LegacyReader",
    "LegacySession",
    "LitestarRedis",
    "StarletteCookie",
    "StarsessionsCookie",
    "StarsessionsRedis",
]
