"""Consumers of Channels that read and write the session."""

from channels.auth import login, logout
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer


class AsyncVisits(AsyncJsonWebsocketConsumer):
    """Replies to each message with session data."""

    async def connect(self):
        """Accept, in a group that the server can send to."""
        await self.channel_layer.group_add("visits", self.channel_name)
        await self.accept()

    async def receive_json(self, content):
        """Count, read or log out."""
        session = self.scope["session"]
        if content == "visit":
            await session.aset("visits", await session.aget("visits", 0) + 1)
        if content == "logout":
            await logout(self.scope)
        await self.send_json(
            {
                "user": self.scope["user"].get_username() or None,
                "visits": await session.aget("visits", 0),
            }
        )


class LoginVisits(AsyncVisits):
    """Logs in before it accepts."""

    async def connect(self):
        """Log in as bob."""
        from django.contrib.auth import get_user_model

        bob = await database_sync_to_async(get_user_model().objects.get)(username="bob")
        await login(self.scope, bob, backend="django.contrib.auth.backends.ModelBackend")
        await self.accept()


class SyncVisits(JsonWebsocketConsumer):
    """The same in a thread."""

    def receive_json(self, content):
        """Count or read."""
        session = self.scope["session"]
        if content == "visit":
            session["visits"] = session.get("visits", 0) + 1
        self.send_json(
            {
                "user": self.scope["user"].get_username() or None,
                "visits": session.get("visits", 0),
            }
        )
