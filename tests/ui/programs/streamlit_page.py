"""The page of `streamlit_app.py`, which runs outside of requests and opens the session itself."""

import streamlit as st
from streamlit_app import sessions

with sessions.open(cookies=st.context.cookies.to_dict(), url=st.context.url) as visit:
    if visit.session.new:
        st.write("Guest")
    else:
        st.write(f"{visit.session.user}: run {visit.session.increment('runs')}")
