# The image of stickyproxy: Python, a virtual environment with the proxy in it, and nothing to build or fetch with.
#   docker build -t ghcr.io/OWNER/stickyproxy:0.1.0 .
#   docker run -p 8080:8080 ghcr.io/OWNER/stickyproxy:0.1.0 run --backend HOST:PORT
# All settings also by the environment: STICKYPROXY_<OPTION>. For a build that is the same for ever, give the base by digest:
#   --build-arg BASE=python:3.13.9-slim-trixie@sha256:...
ARG BASE=python:3.13.9-slim-trixie

FROM ${BASE} AS build
WORKDIR /opt/src
COPY pyproject.toml README.md LICENSE ./
COPY deploy/constraints.txt deploy/
COPY stickyproxy stickyproxy
RUN python -m pip wheel --quiet --no-cache-dir --no-deps --wheel-dir /opt/wheels .
# Bytecode is compiled now, since the container's file system is read-only; not that of the Kubernetes client's thousand
# models, which would be 50 MB and of which the proxy loads a handful.
RUN python -m venv --without-pip /opt/stickyproxy \
 && python -m pip --python /opt/stickyproxy/bin/python install --quiet --no-cache-dir --no-compile \
      --constraint deploy/constraints.txt /opt/wheels/*.whl \
 && /opt/stickyproxy/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
      -x 'kubernetes/(aio/)?client/(api|models)/' /opt/stickyproxy/lib

FROM ${BASE}
LABEL org.opencontainers.image.title="stickyproxy" \
      org.opencontainers.image.description="A session-affinity reverse proxy for NiceGUI apps on Kubernetes" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
# The base brings pip along; nobody needs it here.
RUN python -m pip uninstall --quiet --yes --root-user-action ignore pip
COPY --from=build /opt/stickyproxy /opt/stickyproxy
ENV PATH=/opt/stickyproxy/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    STICKYPROXY_ADMIN=0.0.0.0:9090
# Numeric, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["stickyproxy", "healthcheck"]
ENTRYPOINT ["stickyproxy"]
CMD ["run"]
