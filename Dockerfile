# hope-serve on a CPU or an NVIDIA GPU.
#   docker build -t hope-serve .
#   docker run -p 127.0.0.1:50051:50051 -p 127.0.0.1:9464:9464 -v hope-memory:/var/lib/hope-serve hope-serve serve --insecure
# Without --insecure it needs [tls] and [identity] of a configuration (HOPE_CONFIG), since its port leaves the container.
# For a GPU: docker build --build-arg EXTRAS='[gpu]' --build-arg CONSTRAINTS=/dev/null …, then docker run --gpus all …

FROM python:3.11-slim-bookworm AS build
ARG EXTRAS=""
ARG CONSTRAINTS=constraints.txt
WORKDIR /src
RUN python -m venv /opt/hope
COPY . .
RUN /opt/hope/bin/pip install --no-cache-dir --constraint "${CONSTRAINTS}" ".${EXTRAS}"

FROM python:3.11-slim-bookworm
COPY --from=build /opt/hope /opt/hope
RUN useradd --uid 10001 --create-home hope \
 && install --directory --owner hope --group hope /var/lib/hope-serve
USER 10001
ENV PATH=/opt/hope/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOPE_LISTEN=0.0.0.0:50051 \
    HOPE_METRICS_LISTEN=0.0.0.0:9464 \
    HOPE_MEMORY=sqlite:////var/lib/hope-serve/memory.db
VOLUME /var/lib/hope-serve
EXPOSE 50051 9464
# SIGTERM drains the server; give it its drain_seconds before the kill.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", \
    "import grpc; from grpc_health.v1 import health_pb2 as h, health_pb2_grpc as s; r = s.HealthStub(grpc.insecure_channel('127.0.0.1:50051')).Check(h.HealthCheckRequest(), timeout=2); raise SystemExit(r.status != r.SERVING)"]
ENTRYPOINT ["hope-serve"]
CMD ["serve"]
