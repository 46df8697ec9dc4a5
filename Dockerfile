# CenterStream in a container: `docker compose up` (compose.yaml says how), or by hand
#
#   docker build -t centerstream .
#   docker run --rm --read-only --tmpfs /tmp -v centerstream-cache:/cache -v "$PWD":/media:ro centerstream doctor
#
# Size: the usual torch brings CUDA, which is most of the image. Without a GPU a build of torch for the CPU alone will do:
# --build-arg PIP_EXTRA_INDEX_URL=… with the address that PyTorch's own page of installation gives for it (README.md).

FROM python:3.12-slim AS packages
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv /venv
COPY pyproject.toml requirements.lock ./
# What a run needs, in the versions of the lock: neither tests nor training.
COPY .ci/wanted.py ./
RUN python wanted.py server onnxruntime openvino > wanted.txt \
    && /venv/bin/pip install --no-cache-dir --constraint requirements.lock --requirement wanted.txt

FROM python:3.12-slim
COPY --from=packages /venv /venv
WORKDIR /app
COPY LICENSE NOTICE pyproject.toml run_pipeline.py ./
COPY configs configs
COPY models models
COPY pipeline pipeline
# Compiled here, for the container's user may not write it, and a read-only root nobody. Any user may keep and deliver.
RUN /venv/bin/python -m compileall -q . && install -d -m 1777 /cache /out /media
ENV PATH=/venv/bin:$PATH CENTERSTREAM_CACHE=/cache
# What is measured and exported on this machine outlives the container there.
VOLUME /cache
USER 10001:10001
# Frames lie in memory without a name (memfd): --shm-size is not needed. It counts as the container's memory.
ENTRYPOINT ["python", "run_pipeline.py"]
CMD ["doctor"]
