# hope-serve on a CPU or an NVIDIA GPU, with the model baked in: a pod needs nothing from outside but its store.
#   docker build -t hope-serve .
#   docker build -t hope-serve --build-arg MODEL=models/mine .         a folder of this build context
#   docker run -p 127.0.0.1:50051:50051 -p 127.0.0.1:9464:9464 -v hope-memory:/var/lib/hope-serve hope-serve serve --insecure
# Without --insecure it needs [tls] and [identity] of a configuration (HOPE_CONFIG), since its port leaves the container.
# For a GPU, where torch brings CUDA along and Triton compiles kernels as they are first used:
#   docker build -t hope-serve:gpu --build-arg TORCH_INDEX= --build-arg EXTRAS='[gpu]' --build-arg CONSTRAINTS=/dev/null \
#     --build-arg PACKAGES='gcc libc6-dev' .
#   docker run --gpus all …

ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
# The index of torch builds without CUDA, a tenth of the size; empty for the default index, whose builds have it.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=""
ARG CONSTRAINTS=constraints.txt
WORKDIR /src
RUN python -m venv /opt/hope
COPY . .
RUN /opt/hope/bin/pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} \
      --constraint "${CONSTRAINTS}" ".${EXTRAS}"

FROM python:${PYTHON}-slim-bookworm
ARG PACKAGES=""
# hadolint ignore=DL3008,SC2086
RUN if [ -n "${PACKAGES}" ]; then \
      apt-get update && apt-get install -y --no-install-recommends ${PACKAGES} \
      && rm -rf /var/lib/apt/lists/*; \
    fi
COPY --from=build /opt/hope /opt/hope
ARG MODEL=hope_serve/checkpoints/hope-demo
COPY ${MODEL} /opt/model
RUN useradd --uid 10001 --create-home hope \
 && install --directory --owner hope --group hope /var/lib/hope-serve
USER 10001
ENV PATH=/opt/hope/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOPE_CHECKPOINT=/opt/model \
    HOPE_LISTEN=0.0.0.0:50051 \
    HOPE_METRICS_LISTEN=0.0.0.0:9464 \
    HOPE_HEALTH_LISTEN=127.0.0.1:50052 \
    HOPE_MEMORY=sqlite:////var/lib/hope-serve/memory.db
VOLUME /var/lib/hope-serve
EXPOSE 50051 9464
# SIGTERM drains the server; give it its drain_seconds before the kill.
STOPSIGNAL SIGTERM
# At an address of its own, which speaks no TLS and asks for no certificate, whatever the other ports do.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", \
    "import grpc; from grpc_health.v1 import health_pb2 as h, health_pb2_grpc as s; r = s.HealthStub(grpc.insecure_channel('127.0.0.1:50052')).Check(h.HealthCheckRequest(), timeout=2); raise SystemExit(r.status != r.SERVING)"]
ENTRYPOINT ["hope-serve"]
CMD ["serve"]
