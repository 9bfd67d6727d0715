# syntax=docker/dockerfile:1
# The worker for RunPod Serverless. Build arguments: see docs/image.md.
#
#   docker build --platform linux/amd64 -t infinity-worker .

FROM --platform=linux/amd64 python:3.11-slim-bookworm AS build
# The image's own Python, and no cache that the next stage would not see anyway.
ENV UV_PYTHON=/usr/local/bin/python3.11 UV_PYTHON_DOWNLOADS=never UV_NO_CACHE=1 ENGINE_TORCH=cuda
# What changes seldom comes first: gigabytes that a change of the worker does not build again.
COPY scripts /checkout/scripts
COPY engine/pyproject.toml engine/uv.lock /checkout/engine/
RUN /checkout/scripts/build-image-layout.sh /app engine
ARG MODEL_NAMES=""
ARG MODEL_REVISIONS=""
RUN --mount=type=secret,id=HF_TOKEN \
    HF_TOKEN="$(cat /run/secrets/HF_TOKEN 2>/dev/null || true)" \
    /checkout/scripts/build-image-layout.sh /app models
COPY src /checkout/src
COPY pyproject.toml uv.lock README.md LICENSE .python-version /checkout/
RUN /checkout/scripts/build-image-layout.sh /app worker

FROM --platform=linux/amd64 python:3.11-slim-bookworm
RUN useradd --create-home --uid 10001 worker
COPY --from=build /app/engine /app/engine
COPY --from=build /app/models /app/models
COPY --from=build /app/.venv /app/.venv
COPY --from=build /app/src /app/src
ARG MODEL_NAMES=""
ARG MODEL_REVISIONS=""
ENV MODEL_NAMES=${MODEL_NAMES} \
    MODEL_REVISIONS=${MODEL_REVISIONS} \
    BAKED_MODELS_DIR=/app/models \
    HTTP_HOST=0.0.0.0 \
    PATH=/app/.venv/bin:${PATH} \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# RUN_AS=root where a network volume is to be written to that belongs to root: see docs/image.md.
ARG RUN_AS=worker
USER ${RUN_AS}
WORKDIR /app
CMD ["python", "-u", "-m", "infinity_worker"]
