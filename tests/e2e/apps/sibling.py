"""A Streamlit app whose state, picture and uploads live in one process."""

import base64
import os
import sys

import streamlit as st
from content import picture

st.text(f"replica {sys.argv[1]} process {os.getpid()}")
st.session_state.setdefault("count", 0)
if st.button("Increment"):
    st.session_state.count += 1
st.text(f"count {st.session_state.count}")
st.image(picture(), caption=base64.b64encode(b"picture").decode())
if file := st.file_uploader("File"):
    st.text(f"got {file.name} {len(file.getvalue())}")
