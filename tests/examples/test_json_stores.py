"""examples/json_files.py and examples/json_key_value_api.py, under uvicorn."""

import json

import httpx

from tests.support.processes import serving

SECRET = "7jQk2v9XwP4tLmZ8sRb1NcYd6HfGa3Ue"

#: A minimal key-value service, with a switch to make it fail.
SERVICE = """
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

values, seconds, failing = {}, {}, []


async def value(request: Request):
    key = request.path_params["key"]
    if request.headers["authorization"] != "Bearer t0ken":
        return Response(status_code=401)
    if failing:
        return Response("<h1>Bad gateway</h1>", status_code=502)
    if request.method == "PUT":
        values[key] = await request.body()
        seconds[key] = int(request.query_params["ttl"])
        return Response(status_code=204)
    if key not in values:
        return Response(status_code=404)
    if request.method == "DELETE":
        del values[key]
        return Response(status_code=204)
    return Response(values[key], media_type="application/json")


async def fail(request: Request):
    failing[:] = [1] if request.path_params["how"] == "on" else []
    return Response()


app = Starlette(
    routes=[
        Route("/values/{key}", value, methods=["GET", "PUT", "DELETE"]),
        Route("/fail/{how}", fail),
    ]
)
"""


def test_json_files_are_readable_by_other_programs(tmp_path):
    """A damaged file is an empty session (law S9)."""
    server = ("uvicorn", "examples.json_files:app", "--port", "PORT")
    folder = tmp_path / "files"
    settings = {"SOJOURN_SECRET": SECRET, "SESSION_FOLDER": str(folder)}
    with serving(*server, folder=tmp_path, environ=settings) as url, httpx.Client() as ada:
        assert [ada.get(url).text for _ in range(2)] == ["visit 1\n", "visit 2\n"]
        (file,) = folder.glob("*")
        kept = json.loads(file.read_text())
        assert kept["state"] == {"visits": 2}
        assert kept["metadata"]["user"] is None
        file.write_text(file.read_text()[:-40])
        assert ada.get(url).text == "visit 1\n"


def test_failing_key_value_service_is_503(tmp_path):
    """A15: the session is unchanged."""
    (tmp_path / "service.py").write_text(SERVICE)
    service = ("uvicorn", "service:app", "--port", "PORT", "--app-dir", str(tmp_path))
    server = ("uvicorn", "examples.json_key_value_api:app", "--port", "PORT")
    with serving(*service, folder=tmp_path) as api:
        settings = {
            "SOJOURN_SECRET": SECRET,
            "KV_URL": f"{api}/values",
            "KV_TOKEN": "t0ken",
        }
        with serving(*server, folder=tmp_path, environ=settings) as url, httpx.Client() as ada:
            assert [ada.get(url).text for _ in range(2)] == ["visit 1\n", "visit 2\n"]
            httpx.get(f"{api}/fail/on")
            answer = ada.get(url)
            assert answer.status_code == 503
            assert "set-cookie" not in answer.headers
            httpx.get(f"{api}/fail/off")
            assert ada.get(url).text == "visit 3\n"
