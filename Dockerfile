# The pipeline in an environment of its own, on the image that has the engine (kind `python`, engine `image`).
# docker build -t quantgate .
# docker run --gpus all -v quantgate:/data -e PREFECT_API_URL=… quantgate prefect worker start --pool h100
FROM vllm/vllm-openai:v0.25.1

ENV PYTHONDONTWRITEBYTECODE=1 \
    QUANTGATE_ROOT=/opt/quantgate \
    QUANTGATE_HOME=/data \
    QUANTGATE_ENGINE=image \
    HF_HOME=/data/huggingface \
    DO_NOT_TRACK=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PATH=/opt/quantgate/.venv/bin:$PATH

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 quantgate \
    && mkdir -p /data && chown quantgate /data

WORKDIR /opt/quantgate
# Requirements first: they change less often than the code.
COPY Makefile pyproject.toml README.md LICENSE ./
COPY requirements requirements
COPY quantgate quantgate
COPY flows flows
COPY tasks tasks
COPY warehouse warehouse
RUN make setup
COPY configs configs
COPY plugins plugins
COPY demo demo
COPY prefect.yaml ./

USER quantgate
VOLUME /data
ENTRYPOINT []
CMD ["quantgate", "--help"]
