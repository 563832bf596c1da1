"""Gradio in a FastAPI application with sessions: `uvicorn gradio_app:app`."""

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import RedirectResponse

import sojourn
from sojourn.frameworks.fastapi import SessionDep

app = FastAPI()
sojourn.install(app)


@app.get("/login/{user}")
async def login(session: SessionDep, user: str):
    session.login(user)
    return RedirectResponse("/ui")


async def greet(word: str, request: gr.Request):
    session = request.session
    if session.new:
        return "Please log in"
    await session.arefresh()  # the event may run long after its request
    runs = session.increment("runs")
    await session.acommit()
    return f"{word}, {session.user}: run {runs}"


demo = gr.Interface(greet, "text", "text", api_name="greet")
app = gr.mount_gradio_app(app, demo, path="/ui")
