# docker build -t spool .        (podman: --format docker, or the health check is left out)
# docker run -p 8080:8080 -v spool:/data --read-only --cap-drop ALL --security-opt no-new-privileges --stop-timeout 70 spool
#
# On SIGTERM uploads in flight get time to finish (server.shutdown_grace); docker alone would wait 10 s and kill.

FROM docker.io/library/python:3.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements.txt requirements-build.txt ./
# /opt/spool is what the image is for; it has no pip. What builds the wheel stays in /opt/build.
RUN python -m venv --without-pip /opt/spool && \
    python -m pip --python /opt/spool/bin/python install --require-hashes -r requirements.txt && \
    python -m venv --without-pip /opt/build && \
    python -m pip --python /opt/build/bin/python install --require-hashes -r requirements-build.txt
COPY pyproject.toml README.md LICENSE ./
COPY spool/ spool/
RUN /opt/build/bin/python -m hatchling build -t wheel && \
    python -m pip --python /opt/spool/bin/python install --no-deps --no-index dist/*.whl

FROM docker.io/library/python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="Spool" \
      org.opencontainers.image.description="The landing zone for uploaded media" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.vendor="Spool contributors"
# A fixed number, so that whoever mounts a directory of the host at /data knows whom to give it to.
RUN groupadd --gid 10001 spool && \
    useradd --no-log-init --no-create-home --home-dir /data --shell /usr/sbin/nologin --uid 10001 --gid spool spool && \
    install --directory --owner=spool --group=spool --mode=0700 /data
COPY --from=build /opt/spool /opt/spool
# SPOOL_STORAGE_DIR is for commands in the running container: docker exec NAME spool token create ...
ENV PATH=/opt/spool/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 SPOOL_STORAGE_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', os.getenv('SPOOL_SERVER_PORT', '8080'), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["spool"]
CMD ["serve", "--host", "0.0.0.0", "--dir", "/data"]
